"""Runs acrn-dm with two consoles whose readers stop reading, and measures how its guest's third port answers meanwhile.

`python -m tests.lab.machines.stopped_reader ARGUMENTS...`: ARGUMENTS complete acrn-dm's command line. Prints one JSON
object: see Result. Runs in the outer VM, as the guest of ``stopped.sh`` does on acrn-dm.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

from lab.demo.drive import Failure, connect
from tests.lab import forked

ANSWER_LIMIT = 60.0  # seconds until an answer that is too late counts as none
STALL_LIMIT = 60.0  # until both consoles have dropped output: nothing but what the guest prints fills them
PING_S = 0.05  # between two orders
IDLE_S = 2.0
END = b"THE END\n"
TOO_SLOW = "its reader is too slow"


@attrs.frozen(kw_only=True)
class Result:
    """What was seen."""

    slowest: float  # seconds until the slowest answer, from before the readers stopped until they went on
    answers: int
    stalled: int  # consoles that dropped output
    cpu_flood: float  # share of a processor that acrn-dm and its guest had while the guest printed
    cpu_idle: float  # and while it did not, with readers still stopped and everything full
    newest: list[bool]  # whether each reader got, once it went on, the last that the guest had said
    status: int


class Machine:
    """acrn-dm and our ends of what it has."""

    def __init__(self, scratch: Path, arguments: list[str]) -> None:
        self.log = scratch / "log"
        self._scratch = scratch
        self._numbers = 0
        ports = f"@pty:one,@socket:two={scratch}/two,socket:chan={scratch}/chan"
        argv = [sys.executable, "-m", "acrn_dm", "-s", f"5,virtio-console,{ports}", *arguments]
        with self.log.open("wb") as log:
            self.process = forked.start(argv, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)

    def meet(self) -> None:
        """Take all three ends. Raises Failure."""
        self.chan = self._connect("chan")
        self.chan.settimeout(ANSWER_LIMIT)
        self.two = self._connect("two")
        self.answers = self.chan.makefile("r", newline="\n")
        path = re.search(r"port one: (/dev/pts/\d+)", self.log.read_text())
        assert path is not None, self.log.read_text()
        self.one = os.open(path[1], os.O_RDWR | os.O_NOCTTY)

    def _connect(self, name: str) -> socket.socket:
        """Connect to a port. Soon after its boot the outer VM's clock was seen to jump ahead by minutes."""
        try:
            return connect(f"{self._scratch}/{name}", self.process)
        except Failure:
            return connect(f"{self._scratch}/{name}", self.process)

    def order(self, word: str) -> float:
        """Give an order; returns how long the guest took to answer."""
        self._numbers += 1
        begin = time.monotonic()
        self.chan.sendall(f"{word} {self._numbers}\n".encode())
        assert self.answers.readline() == f"{word} {self._numbers}\n"
        return time.monotonic() - begin

    def cpu_seconds(self) -> float:
        """Of the process, vCPUs included."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stalled(self) -> int:
        """How many consoles have dropped output."""
        return self.log.read_text().count(TOO_SLOW)


def last_words(fd: int) -> bool:
    """Read on until the guest's last words; False when they do not come."""
    os.set_blocking(fd, False)
    seen, deadline = b"", time.monotonic() + ANSWER_LIMIT
    while not seen.endswith(END) and time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            seen = seen[-len(END) :] + os.read(fd, 65536)
            continue
        time.sleep(0.01)
    return seen.endswith(END)


def measure(machine: Machine) -> Result:
    """Let the guest print while nobody reads."""
    machine.order("ping")  # which waits until it is up
    times = [machine.order("ping")]
    cpu, begin = machine.cpu_seconds(), time.monotonic()
    times.append(machine.order("flood"))
    while machine.stalled() < 2 and time.monotonic() < begin + STALL_LIMIT:
        times.append(machine.order("ping"))
        time.sleep(PING_S)
    times += [machine.order("ping") for _ in range(20)]
    cpu_flood = (machine.cpu_seconds() - cpu) / (time.monotonic() - begin)
    times.append(machine.order("hush"))
    cpu, begin = machine.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_S)
    cpu_idle = (machine.cpu_seconds() - cpu) / (time.monotonic() - begin)
    times.append(machine.order("ping"))
    stalled = machine.stalled()
    newest = [last_words(fd) for fd in (machine.one, machine.two.fileno())]
    machine.chan.sendall(b"off 0\n")
    return Result(
        slowest=max(times),
        answers=len(times),
        stalled=stalled,
        cpu_flood=cpu_flood,
        cpu_idle=cpu_idle,
        newest=newest,
        status=machine.process.wait(ANSWER_LIMIT),
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:  # the lab's shared folder takes no sockets
        machine = Machine(Path(scratch), sys.argv[1:])
        try:
            machine.meet()
            print(json.dumps(attrs.asdict(measure(machine))), flush=True)
        except (OSError, subprocess.SubprocessError, AssertionError, Failure) as error:
            print(f"{error!r}; acrn-dm: {machine.log.read_text()[-2000:]}", file=sys.stderr)
            return 1
        finally:
            machine.process.kill()
            machine.process.communicate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
