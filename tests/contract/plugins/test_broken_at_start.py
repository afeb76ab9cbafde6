"""``acrn-dm`` beside broken plugins: what the whole program says and does, from installed distributions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.plugins.installed import install

pytestmark = pytest.mark.stress  # each start of the program costs half a second

DRY = ("--dry-run", "--hypervisor", "sim", "-k", "kernel", "vm")


def start(folder: Path, *args: str, **environment: str) -> tuple[int, list[str]]:
    (folder / "kernel").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "acrn_dm", *args],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if "kernel" not in line]


def test_plugin_that_exits_at_import_ends_nothing(tmp_path: Path) -> None:
    install(tmp_path, "bad", "import sys\nsys.exit(0)")
    _, lines = start(tmp_path, "-s", "0,hostbridge", *DRY)
    said = "plugin bad (acrn-dm-bad 4.2): it would end the program: sys.exit(0)"
    assert lines == [f"acrn-dm: warning: not loaded: {said}"]


def test_plugin_that_is_left_out_is_never_imported(tmp_path: Path) -> None:
    install(tmp_path, "bad", "import os\nos._exit(9)")
    assert start(tmp_path, "--plugins", "no:bad", "-s", "0,hostbridge", *DRY)[1] == []
    assert start(tmp_path, "-s", "0,hostbridge", *DRY, ACRN_DM_PLUGINS="no:bad,no:other")[1] == []


def test_name_that_two_offer_stops_only_who_asks_for_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        install(tmp_path, name, "@hook\ndef acrn_dm_device_types():\n    return [device()]\n")
    assert start(tmp_path, "-s", "0,hostbridge", *DRY)[1] == []
    code, lines = start(tmp_path, "-s", "3,odd", *DRY)
    said = "the device 'odd' is offered by plugin one (acrn-dm-one 4.2) and by plugin two (acrn-dm-two 4.2)"
    ways = "leave one out with --plugins no:one or --plugins no:two"
    assert (code, lines) == (78, [f"acrn-dm: -s 3,odd: {said}; {ways}"])
    assert start(tmp_path, "--plugins", "no:one", "-s", "3,odd", *DRY)[1] == []
