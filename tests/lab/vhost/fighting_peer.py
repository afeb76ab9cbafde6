"""Fights over the eventfds that acrn-dm shares with other processes, and measures how its guest answers meanwhile.

``python -m tests.lab.vhost.fighting_peer PORT SECONDS ENOUGH PID SOCKET...``: PORT is the socket of a port whose guest
repeats each line; the fight takes SECONDS, and longer until there are ENOUGH answers and rounds; PID is acrn-dm's, the
other processes are those that listen at a SOCKET. Prints one JSON object: see Result. Runs in the outer VM.

Fought over are the kicks: a peer may fail its device by the error eventfd and interrupt its guest as often as it
likes, which is another matter. They are filled, emptied and made blocking and not all the time while the processes
serve; then the processes are stopped and the kicks left full and blocking, for longer than an answer may take.
"""

import contextlib
import ctypes
import itertools
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import attrs

from acrn_dm.base.events.eventfd_helpers import identity

FULL = (1 << 64) - 2
EVENTFD = "anon_inode:[eventfd]"
FLIPPING_S, FULL_S = 1.0, 3.0
CALM_S = 3.0  # on a busy machine longer than it keeps a process waiting
FLIP_S = 0.0005  # each wakes a process
PING_S = 0.02
ANSWER_LIMIT = 30.0
PIDFD_GETFD = 438  # its number on every architecture
LISTENS = 1 << 16  # in the flags of /proc/net/unix


@attrs.frozen(kw_only=True)
class Result:
    """What was seen."""

    calm: float  # seconds until the slowest answer before the fight: what this machine takes by itself
    slowest: float  # ... and while it lasted
    answers: int
    kicks: int  # that were fought over
    rounds: int  # for all of them together


def processes(path: str) -> Iterator[int]:
    """Those that listen at the socket *path*."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[6]}]" for row in rows if row[7:] == [path] and int(row[3], 16) & LISTENS}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        if not sockets.isdisjoint(links(folder)):
            yield int(folder.parent.name)


def links(folder: Path) -> Iterator[str]:
    """What the descriptors of a process are; some may close meanwhile, or it may end."""
    with contextlib.suppress(OSError):
        for fd in folder.iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(fd)


def take(pid: int, fd: int) -> int:
    """Our own descriptor of what *fd* is in the process *pid*. Raises OSError."""
    pidfd = os.pidfd_open(pid)
    try:
        taken = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if taken < 0:
        raise OSError(ctypes.get_errno(), f"descriptor {fd} of process {pid}")
    return int(taken)


def watched(pid: int) -> set[int]:
    """Descriptors that are in an epoll set of the process."""
    found = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(number) for number in re.findall(r"^tfd:\s*(\d+)", info.read_text(), re.MULTILINE)}
    return found


def eventfds(pid: int, but: Collection[int] = ()) -> dict[int, int]:
    """Our descriptors of them by the kernel's number, without those whose number there is in *but*."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link) == EVENTFD and int(link.name) not in but:
                taken = take(pid, int(link.name))
                found[identity(taken)] = taken
    return found


def kicks(ours: int, others: Sequence[int]) -> list[int]:
    """Eventfds that the process *ours* shares with *others* and does not watch: calls and error eventfds it does."""
    loops = watched(ours)
    known: set[int] = set().union(*(eventfds(pid) for pid in others))
    return [fd for key, fd in eventfds(ours, but=loops).items() if key in known]


class Fighter(threading.Thread):
    """See the module."""

    def __init__(self, fds: Sequence[int], others: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._fds, self._others = fds, others
        self._halt = threading.Event()
        self.rounds = 0

    def run(self) -> None:
        while not self._halt.is_set():
            end = time.monotonic() + FLIPPING_S
            while time.monotonic() < end:
                for fd in self._fds:
                    flip(fd)
                self.rounds += 1
                time.sleep(FLIP_S)
            self._all(signal.SIGSTOP)
            for fd in self._fds:
                flip(fd)
            self._halt.wait(FULL_S)
            self._all(signal.SIGCONT)

    def _all(self, number: signal.Signals) -> None:
        for pid in self._others:
            os.kill(pid, number)

    def finish(self) -> None:
        """Leave them empty."""
        self._halt.set()
        self.join()
        for fd in self._fds:
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)


def flip(fd: int) -> None:
    """Empty it, fill it, and leave it blocking."""
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(fd)
    with contextlib.suppress(BlockingIOError):
        os.eventfd_write(fd, FULL)
    os.set_blocking(fd, True)


def measure(path: str, seconds: float, enough: Callable[[int], bool] = lambda answers: True) -> list[float]:
    """How long each answer took, for *seconds* and until there are *enough*. Raises AssertionError when one is wrong,
    OSError when none comes.
    """
    times: list[float] = []
    with socket.socket(socket.AF_UNIX) as port:
        port.settimeout(ANSWER_LIMIT)
        port.connect(path)
        answers = port.makefile("r", newline="\n")
        begun = time.monotonic()
        while time.monotonic() < begun + seconds or not enough(len(times)):
            asked = time.monotonic()
            port.sendall(f"ping {len(times)}\n".encode())
            assert answers.readline() == f"ping {len(times)}\n"
            times.append(time.monotonic() - asked)
            time.sleep(PING_S)
    return times


def main() -> int:
    path, seconds, enough, ours, *sockets = sys.argv[1:]
    others = [*itertools.chain.from_iterable(map(processes, sockets))]
    fds = kicks(int(ours), others)
    calm = measure(path, CALM_S)
    fighter = Fighter(fds, others)
    fighter.start()
    try:
        times = measure(path, float(seconds), lambda answers: min(answers, fighter.rounds) >= int(enough))
    finally:
        fighter.finish()
    result = Result(calm=max(calm), slowest=max(times), answers=len(times), kicks=len(fds), rounds=fighter.rounds)
    print(json.dumps(attrs.asdict(result)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
