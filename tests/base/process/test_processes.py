"""Other processes' files and names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from acrn_dm.base.process import processes


def test_who_has_a_file_open_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    inode = path.stat().st_ino
    with (
        path.open() as ours,
        subprocess.Popen(["tail", "-f", "/dev/null", path], stdin=ours, stdout=subprocess.PIPE, bufsize=0) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.read(1)  # the program runs
        found = set(processes.openers(lambda s: s.st_ino == inode))
        assert {(os.getpid(), ours.fileno()), (other.pid, 0)} <= found
        assert processes.describe(other.pid) == f"process {other.pid} (tail)"
        assert "flags:" in processes.fd_information(other.pid, 0)
        other.kill()


def test_our_own_process_is_called_so() -> None:
    assert processes.describe(os.getpid()) == "this process"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ((sys.executable, "/opt/acrn-dm", "vm"), "acrn-dm"),
        ((sys.executable, "-m", "acrn_dm", "vm"), "acrn_dm"),
        (("/usr/bin/qemu-system-x86_64", "-S"), "qemu-system-x86_64"),
        ((), "unknown"),
    ],
)
def test_program_is_named_not_its_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], name: str
) -> None:
    (tmp_path / "77").mkdir()
    (tmp_path / "77" / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command))
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert processes.program(77) == name


def test_process_that_has_gone_is_no_error() -> None:
    assert processes.fd_information(2**30, 0) == ""
    assert processes.program(2**30) == "unknown"
