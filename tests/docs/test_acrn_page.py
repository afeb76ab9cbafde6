"""What docs/how-to/acrn.md shows works: the launch line, and the emulated module with a call that fails."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from acrn_dm.cli.app import main
from lab.hsm.build import RigUnavailable, library
from tests.boot.samples import make_bzimage

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "acrn.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    joined = block.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def test_launch_line_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "UserVM.img").write_bytes(bytes(1 << 20))
    (command,) = commands(blocks("console")[0])
    argv = shlex.split(command)[1:]
    argv[argv.index("--ovmf") + 1] = str(firmware(tmp_path))
    code = main([*argv, "--hypervisor", "hsm"])
    out, err = capsys.readouterr()
    assert "0:4.0  virtio-net" in out
    assert code == 0 or (code == 78 and err.startswith("acrn-dm: ")), err  # what is missing is on the host


def firmware(folder: Path) -> Path:
    image = folder / "OVMF.fd"
    image.write_bytes(b"\x90" * (1 << 20))
    return image


@pytest.fixture
def run(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The page's commands in one shell, on a kernel of no consequence: it is never started."""
    try:
        library()
    except RigUnavailable as e:
        pytest.skip(str(e))
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm to create a virtual machine with")
    kernel, trace = tmp_path / "bzImage", tmp_path / "calls.json"
    kernel.write_bytes(make_bzimage())
    python = Path(sys.executable)
    script = "\n".join(commands(blocks("console")[1]))
    script = script.replace("./bzImage", str(kernel)).replace("calls.json", str(trace))
    script = script.replace("acrn-dm ", f"{python} -m acrn_dm ").replace("python -m lab", f"{python} -m lab")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RIG_")}
    return subprocess.run(["sh", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.process
def test_failing_call_is_told_as_shown(run: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    shown = blocks("console")[1].splitlines()[-1]
    assert run.stderr.splitlines() == [shown]
    assert run.returncode == 1
    end = blocks("json")[0].splitlines()
    assert (tmp_path / "calls.json").read_text().splitlines()[-len(end) :] == end
