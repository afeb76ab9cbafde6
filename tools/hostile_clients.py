"""``python -m tools.hostile_clients [--clients 10000] [--seed N] [DEVICE ...]``: clients that keep no rule.

They are of ``acrn-dm-export vhost-user``, while another device of the same process is used. A client says what a good
one does, but leaves out, repeats, exchanges and bends its messages, brings descriptors of the wrong kind or none,
memory that overlaps or that it shortens, rings full of noise; then it floods, stops in the middle of a message, or
leaves. Before each of them does so a driver of the other device (entropy) has to get an answer within ten seconds. Now
and then a good client has to be served by the very device, past those that have said nothing and stay. At the end the
process has as many descriptors as before, and has not grown.
"""

import contextlib
import mmap
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from acrn_dm.backends.wire import message as wire
from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.message import HEADER, Request
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import RingLayout
from tools.hostility import PATIENCE_S, Attack, Bender, Broken, Kinds, Step, attack_all, connected

DEVICES = (
    "virtio-rnd",
    "virtio-console,@file:port0={folder}/out",
    "virtio-blk,mq=2,{folder}/disk",
    "virtio-net,driver=loop",
)
MEMORY, USER, RINGS = 1 << 20, 0x7F00_0000_0000, 3
VERSION_1 = 1 << 32
CHECK_EACH = 25  # clients between two looks at the device itself
FLOOD = 500
TABLE = 3  # the step of a conversation that tells of memory
WAYS = ("memory shortened", "kicks", "kicks", "flood", "half a message", "end of stream")


@attrs.define(eq=False)
class GoodClient:
    """A client that keeps the rules, with memory of its own; also its driver's ``RingMemory``."""

    peer: socket.socket
    fd: int
    ram: mmap.mmap
    _ring: DriverRing | None = None
    _eventfds: list[int] = attrs.field(factory=list)

    @classmethod
    def connect(cls, path: Path) -> "GoodClient":
        """Raises Broken when nobody takes it."""
        peer = connected(path)
        fd = os.memfd_create("good")
        os.ftruncate(fd, MEMORY)
        return cls(peer, fd, mmap.mmap(fd, MEMORY))

    def close(self) -> None:
        """Leave."""
        self.peer.close()
        self.ram.close()
        for fd in (self.fd, *self._eventfds):
            os.close(fd)

    def read(self, gpa: int, length: int) -> bytes:
        """From its memory."""
        return self.ram[gpa : gpa + length]

    def write(self, gpa: int, data: bytes) -> None:
        """To its memory."""
        self.ram[gpa : gpa + len(data)] = data

    def queues(self) -> int:
        """How many the device has. Raises Broken where there is no answer."""
        self.peer.sendall(wire.encode(Request.GET_QUEUE_NUM))
        answer = b""
        try:
            while len(answer) < HEADER.size + 8:
                part = self.peer.recv(HEADER.size + 8 - len(answer))
                if not part:
                    raise Broken("a good client was left")
                answer += part
        except OSError as e:
            raise Broken(f"a good client was not answered: {e}") from e
        return int.from_bytes(answer[HEADER.size :], "little")

    def start(self) -> None:
        """Have ring 0 served."""
        layout = RingLayout.at(0x10000, 64)
        self._ring = DriverRing(self, layout, event_idx=False)
        self._eventfds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        for data, fds in conversation(layout, self.fd, [MEMORY], 1, self._eventfds):
            socket.send_fds(self.peer, [data], fds)
        self.queues()

    def entropy(self) -> float:
        """Seconds until a request of 64 bytes was answered. Raises Broken."""
        assert self._ring is not None
        self._ring.add_chain(in_=[(0x80000, 64)])
        self._ring.publish()
        began = time.monotonic()
        os.eventfd_write(self._eventfds[0], 1)
        while not self._ring.used():
            if time.monotonic() > began + PATIENCE_S:
                raise Broken(f"the other device did not answer within {PATIENCE_S:g} s")
            time.sleep(0.0005)
        return time.monotonic() - began


def conversation(layout: RingLayout, memory: int, sizes: Sequence[int], rings: int, eventfds: list[int]) -> list[Step]:
    """What a client says until *rings* of its rings run; its memory has regions of *sizes*, all of the same file."""
    regions, gpa = [], 0
    for size in sizes:
        regions.append(payload.region(gpa, size, USER + gpa, 0))
        gpa += size
    steps: list[Step] = [
        (wire.encode(Request.SET_OWNER), []),
        (wire.encode(Request.SET_PROTOCOL_FEATURES, wire.U64.pack(0)), []),
        (wire.encode(Request.SET_FEATURES, wire.U64.pack(VERSION_1 | wire.PROTOCOL_FEATURES)), []),
        (wire.encode(Request.SET_MEM_TABLE, payload.memory_table(regions)), [memory] * len(regions)),
    ]
    addresses = {"desc": USER + layout.desc, "avail": USER + layout.avail, "used": USER + layout.used}
    for index in range(rings):
        state = payload.VRING_STATE
        kick, call = eventfds[2 * index : 2 * index + 2]
        steps += [
            (wire.encode(Request.SET_VRING_NUM, state.pack(index, 64)), []),
            (wire.encode(Request.SET_VRING_BASE, state.pack(index, 0)), []),
            (wire.encode(Request.SET_VRING_ADDR, payload.vring_addr(index, **addresses)), []),
            (wire.encode(Request.SET_VRING_CALL, payload.vring_fd(index)), [call]),
            (wire.encode(Request.SET_VRING_KICK, payload.vring_fd(index)), [kick]),
            (wire.encode(Request.SET_VRING_ENABLE, state.pack(index, 1)), []),
        ]
    return steps


@attrs.define(eq=False)
class HostileClient:
    """One of them, as the dice fall."""

    dice: random.Random
    kinds: Kinds
    _fds: list[int] = attrs.field(factory=list)

    def attack(self, path: Path, meanwhile: Callable[[], None]) -> None:
        """Connect, do harm, call *meanwhile*, leave. Raises Broken when the server keeps it waiting."""
        dice = self.dice
        memory = os.memfd_create("hostile")
        self._fds = [memory, *(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2 * RINGS)), os.open("/", os.O_RDONLY)]
        os.ftruncate(memory, MEMORY)
        os.pwrite(memory, dice.randbytes(MEMORY // 16), dice.choice((0, 0x10000)))
        sizes = [dice.choice((0, 1, 4096, MEMORY // 2, MEMORY, 1 << 40)) if dice.random() < 0.2 else MEMORY // 2] * 2
        if any(size != MEMORY // 2 for size in sizes):
            self.kinds["memory of other sizes"] += 1
        steps = conversation(RingLayout.at(0x10000, 64), memory, sizes, dice.randint(1, RINGS), self._fds[1:-1])
        if dice.random() < 0.1:
            self.kinds["overlapping memory"] += 1
            steps[TABLE] = self._overlapping(memory)
        try:
            with connected(path) as peer:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._say(peer, self._bent(steps))
                    self._harm(peer, memory)
                meanwhile()
        except TimeoutError as e:
            raise Broken(f"the device took nothing for {PATIENCE_S:g} s") from e
        finally:
            for fd in self._fds:
                os.close(fd)

    def _overlapping(self, memory: int) -> Step:
        """Two regions with guest addresses, addresses of the client, or both in common."""
        half, away = MEMORY // 2, self.dice.choice((0, 1, 4096, MEMORY // 4, MEMORY // 2 - 1))
        other = self.dice.choice((away, half)), USER + self.dice.choice((away, half))
        regions = [payload.region(0, half, USER, 0), payload.region(other[0], half, other[1], 0)]
        return wire.encode(Request.SET_MEM_TABLE, payload.memory_table(regions)), [memory] * 2

    def _bent(self, steps: list[Step]) -> Iterator[Step]:
        """The steps, but for what the dice do to them."""
        dice = self.dice

        def made_up() -> bytes:
            code = dice.choice((*Request, 0, 99, 1 << 31))
            return wire.encode(code, dice.randbytes(dice.choice((0, 4, 8, 32, 40))))

        def resized(data: bytes) -> bytes:
            return HEADER.pack(dice.randrange(41), 1, dice.choice((0, 7, 4096, 4097, 0xFFFF_FFFF)))

        return Bender(dice, self.kinds, self._fds, made_up, resized).bent(steps, (0.0, 0.05, 0.3))

    def _say(self, peer: socket.socket, steps: Iterator[Step]) -> None:
        for data, fds in steps:
            socket.send_fds(peer, [data], fds)

    def _harm(self, peer: socket.socket, memory: int) -> None:
        """What is left to be done, one of the ways."""
        dice = self.dice
        way = dice.randrange(len(WAYS))
        self.kinds[WAYS[way]] += 1
        if way == 0:
            self._await_answer(peer)  # what was said has been done by then, where it is not refused
            os.ftruncate(memory, dice.choice((0, 4096, 0x10000)))
        if way < 4:
            for kick in self._fds[1:-1:2]:
                os.eventfd_write(kick, 1)
            time.sleep(dice.random() * 0.002)
        if way == 3:
            peer.sendall(wire.encode(Request.GET_FEATURES) * FLOOD)  # whose answers nobody reads
        if way == 4:
            peer.sendall(wire.encode(Request.SET_MEM_TABLE, bytes(40))[: dice.randrange(1, 40)])
        if way == 5:
            peer.shutdown(socket.SHUT_WR)

    @staticmethod
    def _await_answer(peer: socket.socket) -> None:
        """To a question; a server that takes it for a part of something bent does not answer."""
        peer.sendall(wire.encode(Request.GET_FEATURES))
        peer.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            peer.recv(4096)
        peer.settimeout(PATIENCE_S)


def look_at(path: Path, device: str) -> None:
    """The device at *path* serves a good client. Raises Broken."""
    good = GoodClient.connect(path)
    try:
        if good.queues() < 1:
            raise Broken(f"{device} has no queues any more")
    finally:
        good.close()


def witness(path: Path) -> GoodClient:
    """Whose ring is served at *path*. Raises Broken."""
    good = GoodClient.connect(path)
    good.start()
    return good


ATTACK = Attack(protocol="vhost-user", hostile=HostileClient, witness=witness, look=look_at, each=CHECK_EACH)


def main(arguments: Sequence[str]) -> int:
    """0 when nothing broke."""
    assert __doc__ is not None
    return attack_all(arguments, ATTACK, text=__doc__.partition("\n\n")[2], devices=DEVICES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
