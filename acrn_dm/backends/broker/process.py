"""``python -m acrn_dm.backends.broker.process SOCKET``: the broker's program.

Its rules come by standard input, one JSON object: ``sockets``, the paths that it connects to, each with its protocol;
``devices``, the orders of those that it starts processes of, by their names; and ``firsts``, how many threads of the
process ``machine`` may come before others at a time: looks at rings that come late have missed something. It ends when
its socket does, and gives back then what pools of huge pages were grown by for the machine. Nobody types this command.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.backends.broker import CONNECT, FIRST, KILL, MAX_PACKET, POLL, POOLS, START
from acrn_dm.backends.helper import child
from acrn_dm.backends.helper.child import Child
from acrn_dm.backends.wire.channel import connect
from acrn_dm.base.errors import HostError
from acrn_dm.base.process.privileges import no_new_privileges
from acrn_dm.base.records import define
from acrn_dm.memory.hugepages import SIZES, HugePages

COMES_FIRST = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK

Answer = tuple[dict[str, object], Sequence[int]]


@define(eq=False)
class Broker:
    """The rules, and the processes that were started: one at a time for each device, however many are asked for."""

    sockets: Mapping[str, str]  # protocols by paths
    devices: Mapping[str, str]
    firsts: int = 0
    machine: int = 0
    pools: Mapping[int, int] | None = attrs.field(default=None, init=False)  # what they were grown by; None: not told
    _threads: frozenset[int] = attrs.field(default=frozenset(), init=False)  # that come first
    _children: dict[int, Child] = attrs.field(factory=dict, init=False)
    _pids: dict[str, int] = attrs.field(factory=dict, init=False)  # of the last process of each device

    def answer(self, packet: bytes) -> Answer:
        """Do what *packet* asks for, if the rules have it. The descriptors are the receiver's. Raises HostError."""
        try:
            asked: Any = json.loads(packet)
            do, what = asked["do"], asked["what"]
        except (ValueError, RecursionError, TypeError, KeyError):
            raise HostError("no request") from None
        if do == CONNECT and isinstance(what, str) and what in self.sockets:
            return {}, [connect(Path(what), self.sockets[what]).detach()]
        if do == START and isinstance(what, str) and what in self.devices:
            return self._start(what)
        if do in (POLL, KILL) and isinstance(what, int) and what in self._children:
            return self._ended(what) if do == POLL else self._kill(what)
        if do == FIRST and isinstance(what, int) and self._may_come_first(what):
            return self._have_first(what)
        if do == POOLS and self.pools is None and isinstance(what, dict):
            return self._note_pools(what)
        raise HostError(f"{do!r} of {what!r} is none of what this broker does")

    def _start(self, name: str) -> Answer:
        last = self._children.get(self._pids.get(name, -1))
        if last is not None:
            if last.ended() is None:
                raise HostError(f"{name} has a process already, {last.pid}")
            self._forget(last.pid)
        started = child.start(name, self.devices[name].encode())
        self._children[started.pid], self._pids[name] = started, started.pid
        report, started.report = started.report, -1
        return {"pid": started.pid}, [started.take().detach(), report]

    def _ended(self, pid: int) -> Answer:
        started = self._children[pid]
        if started.ended() is None:
            return {"code": None}, []
        self._forget(pid)
        return {"code": started.process.returncode}, []

    def _forget(self, pid: int) -> None:
        """It is gone, and its number may be another's."""
        del self._children[pid]
        self._pids = {name: number for name, number in self._pids.items() if number != pid}

    def _note_pools(self, grown: Mapping[str, object]) -> Answer:
        counts = {size: grown.get(str(size), 0) for size in SIZES}
        self.pools = {size: pages for size, pages in counts.items() if isinstance(pages, int) and pages > 0}
        return {}, []

    def give_back(self) -> None:
        """What was taken from the host for the machine, which has ended. Raises HostError."""
        if self.pools:
            pages = HugePages()
            pages.take_over(self.pools)
            pages.give_back()

    def _may_come_first(self, thread: int) -> bool:
        self._threads = frozenset(filter(self._is_machines, self._threads)) - {thread}
        return self._is_machines(thread) and len(self._threads) < self.firsts

    def _is_machines(self, thread: int) -> bool:
        return os.path.exists(f"/proc/{self.machine}/task/{thread:d}")

    def _have_first(self, thread: int) -> Answer:
        try:
            os.sched_setscheduler(thread, COMES_FIRST, os.sched_param(1))
        except OSError as e:
            raise HostError.from_os(f"having thread {thread} come first", e) from e
        self._threads |= {thread}
        return {}, []

    def _kill(self, pid: int) -> Answer:
        self._children[pid].kill()
        return {}, []


def serve(broker: Broker, peer: socket.socket) -> None:
    """Answer one request after another until the machine has gone."""
    while packet := peer.recv(MAX_PACKET):
        fds: Sequence[int] = ()
        try:
            told, fds = broker.answer(packet)
        except HostError as e:
            told = {"error": str(e)}
        try:
            socket.send_fds(peer, [json.dumps(told).encode()], fds)
        except OSError:
            return
        finally:
            for fd in fds:
                os.close(fd)


def main(argv: Sequence[str]) -> int:
    """Serve the machine at the socket whose number is *argv*; returns the exit code."""
    no_new_privileges()
    rules = json.loads(sys.stdin.buffer.read())
    with socket.socket(fileno=int(argv[0])) as peer:
        broker = Broker(**rules)
        serve(broker, peer)
    broker.give_back()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
