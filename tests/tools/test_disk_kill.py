"""A short run of ``python -m tools.disk_kill``; and disks that forget what they acknowledged, which it must notice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import disk_kill

ROOT = Path(__file__).resolve().parents[2]


def run(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def has_direct_io(directory: Path) -> bool:
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.stress
def test_killed_disk_has_lost_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """In each cache mode; the tool's own default is a thousand kills of each."""
    modes = [mode for mode in disk_kill.MODES if "nocache" not in mode or has_direct_io(tmp_path)]
    done = run("tools.disk_kill", "--kills", "3", "--directory", str(tmp_path), *modes)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == modes, done.stderr
    assert all(line.endswith("nothing acknowledged was lost") for line in lines)
    assert all(": 3 kills, " in line and ", 0 answers" not in line for line in lines)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("mode", "fault"),
    [("writethru", "early"), ("writeback", "early"), ("writethru-power", "volatile"), ("writeback-power", "no_flush")],
)
@pytest.mark.stress
def test_disk_that_forgets_is_caught(mode: str, fault: str) -> None:
    done = run("tests.tools.forgetful_disk", mode, fault)
    assert "was promised to be there" in done.stdout, done.stderr


def test_mode_that_does_not_exist_is_named() -> None:
    done = run("tools.disk_kill", "writearound")
    assert done.returncode == 2
    assert "no mode 'writearound'; there are writethru" in done.stderr


def test_foreign_and_future_blocks_are_noticed(tmp_path: Path) -> None:
    ledger = disk_kill.Ledger()
    ledger.submitted[0] = 3
    path = tmp_path / "disk"
    for stamp, named in (((7, 0, 4), "never sent"), ((7, 1, 1), "lies here"), ((8, 0, 1), "lies here")):
        path.write_bytes(disk_kill.STAMP.pack(*stamp).ljust(512, b"\0"))
        (line,) = disk_kill.losses(path, 7, ledger, power=False)
        assert named in line
