"""A machine in its sandbox as the tests have it: another process, which does what they ask."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.base.sandbox import OFF
from tests.backends.user.user_rig import Daemon

FIRST_SLOT, SECTOR = 3, 512
MONITOR = "monitor"  # the command monitor's socket
ROOT = Path(__file__).resolve().parents[3]
EXPORT = (sys.executable, "-m", "acrn_dm.export.cli")
CALL = """
import os, socket, sys, time
peer = socket.socket(socket.AF_UNIX)
while peer.connect_ex(sys.argv[1]):
    time.sleep(0.01)
os.set_inheritable(peer.fileno(), True)
program = [sys.executable, "-m", "acrn_dm.export.cli", *sys.argv[2:], f"--fd={peer.fileno()}"]
os.execv(program[0], program)
"""


@attrs.define(eq=False)
class Confined:
    """The machine; see ``confined_machine``."""

    process: "subprocess.Popen[str]"
    log: Path

    def ask(self, expression: str) -> Any:
        """What *expression* comes to there."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(expression) + "\n")
        self.process.stdin.flush()
        return self._answer()["is"]

    @property
    def broker(self) -> int:
        """Its broker's number."""
        return int(self.ask("made.machine.broker._process.pid"))

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it has ended: {self.log.read_text()}"
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer["error"] + self.log.read_text()
        return answer


@contextmanager
def confined(folder: Path, *devices: str, mode: str = "strict") -> Iterator[Confined]:
    """A machine with *devices* in a sandbox of *mode*, which ends well."""
    log = folder / "machine.log"
    argv = [sys.executable, "-m", "tests.machine.confined.confined_machine", mode, str(folder / MONITOR), *devices]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", log.read_text()
            assert is_confined(process.pid) == (mode != OFF)
            yield Confined(process, log)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()


def calling(folder: Path, way: str, text: str) -> Daemon:
    """``acrn-dm-export`` with the device *text*, which connects to the socket ``s`` in *folder* when that is there."""
    return Daemon([sys.executable, "-c", CALL, str(folder / "s"), way, text], folder / "none", folder / "export.log")


def is_confined(pid: int) -> bool:
    """Whether the process has a filter of system calls and no capabilities."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return "Seccomp:\t2" in lines and "CapEff:\t0000000000000000" in lines


def export(folder: Path, way: str, text: str) -> Daemon:
    """``acrn-dm-export`` with the device *text*, at the socket ``s`` in *folder*, not started yet."""
    path = folder / "s"
    return Daemon([*EXPORT, way, text, f"--socket-path={path}"], path, folder / "export.log")
