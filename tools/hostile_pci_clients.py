"""``python -m tools.hostile_pci_clients [--clients 10000] [--seed N] [DEVICE ...]``: the same over vfio-user.

They are of ``acrn-dm-export vfio-user``, while another device of the same process is used. Clients bring memory,
registers, doorbells and interrupts out of order, bent, repeated, half and with descriptors of the wrong kind, while
rings run on noise and memory is taken away below them. Before each of them leaves a driver of the other device has to
get an answer (entropy) within ten seconds, and now and then a good client has to be served by the very device. At the
end the process has as many descriptors as before, and has not grown.
"""

import contextlib
import mmap
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.message import Command
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import RingLayout
from tools.hostility import PATIENCE_S, Attack, Bender, Broken, Kinds, Step, attack_all, connected

DEVICES = ("edu", "virtio-rnd", "virtio-blk,mq=2,{folder}/disk", "virtio-net,driver=loop")
MEMORY, RINGS, SIZE, DATA = 1 << 20, 2, 64, 0x80000
BAR, STATUS, NOTIFY, MSIX = 4, 0x14, 0x3000, 2
FEATURES = (0, 1 << 32 | 1 << 33)
FLOOD = 500
EDU, EDU_ID, EDU_REGISTERS = 0, 0x010000ED, (0x04, 0x08, 0x60, 0x64, 0x80, 0x88, 0x90, 0x98)
CHECK_EACH = 10  # clients between two looks at the device itself
WHILE = (
    *("memory taken away", "overlapping memory", "rings of noise", "status", "reset", "doorbell", "registers of BAR 0"),
    "interrupts",
)
WAYS = ("memory shortened", "kicks", "flood", "half a message", "end of stream")


def message(command: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A whole one."""
    return wire.encode(7, command, payload, flags=flags)


VERSION = message(Command.VERSION, wire.VERSION.pack(0, 0) + b"{}".ljust(100) + b"\0")


def write(offset: int, value: int, size: int, bar: int = BAR) -> Step:
    """To a register, of the modern BAR; nobody waits for it."""
    data = wire.REGION.pack(offset, bar, size) + value.to_bytes(size, "little")
    return message(Command.REGION_WRITE, data, wire.NO_REPLY), []


def conversation(memory: int, calls: Sequence[int]) -> Iterator[Step]:
    """What a client says until its rings run."""
    yield VERSION, []
    for part in range(2):
        half = MEMORY // 2
        yield message(Command.DMA_MAP, wire.DMA_MAP.pack(32, 3, half * part, half * part, half)), [memory]
    for status in (0, 3):
        yield write(STATUS, status, 1)
    for word in range(2):
        yield write(8, word, 4)
        yield write(12, FEATURES[1] >> 32 * word & 0xFFFF_FFFF, 4)
    yield write(STATUS, 11, 1)
    for index, call in enumerate(calls):
        layout = RingLayout.at(0x10000 * (1 + index), SIZE)
        trigger = wire.DATA_EVENTFD | wire.ACTION_TRIGGER
        yield message(Command.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, trigger, MSIX, index, 1)), [call]
        for offset, value, size in ((0x16, index, 2), (0x18, SIZE, 2), (0x1A, index, 2)):
            yield write(offset, value, size)
        for offset, value in ((0x20, layout.desc), (0x28, layout.avail), (0x30, layout.used)):
            yield write(offset, value, 8)
        yield write(0x1C, 1, 2)
    yield write(STATUS, 15, 1)


@attrs.define(eq=False)
class GoodClient:
    """A client that keeps the rules, with memory of its own; also its driver's ``RingMemory``."""

    peer: socket.socket
    fd: int
    ram: mmap.mmap
    call: int
    ring: DriverRing = attrs.field(init=False)

    @classmethod
    def connect(cls, path: Path) -> "GoodClient":
        """Its ring 0 is served. Raises Broken when nobody takes it."""
        peer, memory, call = connected(path), os.memfd_create("good"), os.eventfd(0, os.EFD_NONBLOCK)
        os.ftruncate(memory, MEMORY)
        good = cls(peer, memory, mmap.mmap(memory, MEMORY), call)
        good.ring = DriverRing(good, RingLayout.at(0x10000, SIZE), event_idx=False)
        return good

    def close(self) -> None:
        """Leave."""
        self.peer.close()
        self.ram.close()
        os.close(self.fd)
        os.close(self.call)

    def read(self, gpa: int, length: int) -> bytes:
        """From its memory."""
        return self.ram[gpa : gpa + length]

    def write(self, gpa: int, data: bytes) -> None:
        """To its memory."""
        self.ram[gpa : gpa + len(data)] = data

    def start(self) -> None:
        """Say what makes ring 0 run. Raises Broken."""
        for data, fds in conversation(self.fd, [self.call]):
            socket.send_fds(self.peer, [data], fds)
        self.awaited(STATUS, BAR, b"\x0f")

    def awaited(self, offset: int, bar: int, value: bytes) -> None:
        """Until the last answer to all that was said is *value*, of a register. Raises Broken."""
        asked = wire.REGION.pack(offset, bar, len(value))
        data = b""
        try:
            self.peer.sendall(message(Command.REGION_READ, asked))
            while not data.endswith(asked + value):
                part = self.peer.recv(4096)
                if not part:
                    raise Broken("a good client was left")
                data = data[-4096:] + part
        except OSError as e:
            raise Broken(f"a good client was not served: {e}") from e

    def request(self, out: list[tuple[int, int]], in_: list[tuple[int, int]]) -> float:
        """Seconds until it was answered. Raises Broken."""
        began = time.monotonic()
        self.ring.add_chain(out, in_)
        self.ring.publish()
        try:
            self.peer.sendall(write(NOTIFY, 0, 2)[0])
        except OSError as e:
            raise Broken(f"a good client was left: {e}") from e
        while not self.ring.used():
            if time.monotonic() > began + PATIENCE_S:
                raise Broken(f"a good client was not served within {PATIENCE_S:g} s")
            time.sleep(0.0005)
        return time.monotonic() - began

    def entropy(self) -> float:
        """Seconds until a request of 64 bytes was answered. Raises Broken."""
        return self.request([], [(DATA, 64)])


def look_at(path: Path, device: str) -> None:
    """*device* at *path* serves a good client. Raises Broken."""
    good = GoodClient.connect(path)
    try:
        if device.startswith("edu"):
            good.peer.sendall(VERSION)
            good.awaited(0, EDU, EDU_ID.to_bytes(4, "little"))
            return
        good.start()
        if "blk" in device:
            good.request([(DATA, 16)], [(DATA + 512, 512), (DATA + 1024, 1)])
        elif "rnd" in device:
            good.entropy()  # frames come from nowhere: of a card, to be asked is answer enough
    finally:
        good.close()


def witness(path: Path) -> GoodClient:
    """Whose ring is served at *path*. Raises Broken."""
    good = GoodClient.connect(path)
    good.start()
    return good


@attrs.define(eq=False)
class HostileClient:
    """One of them, as the dice fall."""

    dice: random.Random
    kinds: Kinds

    def attack(self, path: Path, meanwhile: Callable[[], None]) -> None:
        """Connect, do harm, call *meanwhile*, leave. Raises Broken when the server keeps it waiting."""
        dice, memory = self.dice, os.memfd_create("hostile")
        fds = [memory, *(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(RINGS)), os.open("/", os.O_RDONLY)]
        os.ftruncate(memory, MEMORY)
        for at in (0x10000, 0x20000):
            self._fill(memory, at)
        try:
            with connected(path) as peer:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for data, beside in self._bent(list(conversation(memory, fds[1:-1])), fds):
                        socket.send_fds(peer, [data], beside)
                    for _ in range(dice.randrange(40)):
                        data, beside = self._while_running(memory, fds)
                        socket.send_fds(peer, [data], beside)
                    self._harm(peer, memory)
                meanwhile()
        except TimeoutError as e:
            raise Broken(f"the device took nothing for {PATIENCE_S:g} s") from e
        finally:
            for fd in fds:
                os.close(fd)

    def _fill(self, memory: int, at: int) -> None:
        """A ring of noise, or one whose chains are as they should be, but for their addresses."""
        dice, layout = self.dice, RingLayout.at(at, SIZE)
        if dice.random() < 0.5:
            os.pwrite(memory, dice.randbytes(0x1000), at)
            return
        for n in range(SIZE):
            place = dice.choice((DATA, MEMORY // 2 - 64, MEMORY - 8, dice.getrandbits(64)))
            os.pwrite(
                memory, struct.pack("<QIHH", place, dice.choice((1, 16, 4096)), 2 * (n % 2), 0), layout.desc + 16 * n
            )
        os.pwrite(memory, struct.pack("<HH64H", 0, dice.randrange(SIZE + 1), *range(SIZE)), layout.avail)

    def _bent(self, steps: list[Step], fds: list[int]) -> Iterator[Step]:
        """The steps, but for what the dice do to them."""
        dice = self.dice

        def made_up() -> bytes:
            code = dice.choice((*Command, 0, 14, 99))
            return message(code, dice.randbytes(dice.choice((0, 8, 16, 20, 32))))

        def resized(data: bytes) -> bytes:
            size = dice.choice((0, 15, 16, 17, 4096, 1 << 21, 0xFFFF_FFFF))
            return wire.HEADER.pack(7, dice.choice((*Command,)), size, 0, 0) + data[wire.HEADER.size :]

        return Bender(dice, self.kinds, fds, made_up, resized).bent(steps, (0.0, 0.0, 0.05, 0.3))

    def _while_running(self, memory: int, fds: list[int]) -> Step:
        """A message while rings run."""
        dice, page = self.dice, 4096
        at, size = page * dice.randrange(MEMORY // page), page * dice.choice((1, 2, 64))
        kind = dice.randrange(len(WHILE))
        self.kinds[WHILE[kind]] += 1
        if kind == 0:
            return message(
                Command.DMA_UNMAP, wire.DMA_UNMAP.pack(24, 0, *dice.choice(((at, size), (0, MEMORY // 2))))
            ), []
        if kind == 1:
            flags = dice.choice((1, 3))
            beside = [memory] if dice.random() < 0.8 else []
            return message(Command.DMA_MAP, wire.DMA_MAP.pack(32, flags, at % (MEMORY // 2), at, size)), beside
        if kind == 2:
            os.pwrite(memory, dice.randbytes(64), dice.choice((0x10000, 0x20000)) + dice.randrange(0x800))
        if kind == 3:
            return write(dice.choice((STATUS, 0x16, 0x1C, 0x3A)), dice.choice((0, 1, 15)), 1)
        if kind == 4:
            return message(Command.DEVICE_RESET), []
        if kind == 6:
            value = dice.choice((at, dice.getrandbits(64), 1, 3, 5, 4096))
            return write(dice.choice(EDU_REGISTERS), value & 0xFFFF_FFFF, 4, EDU)
        if kind == 7:
            flags, index = 1 << dice.randrange(3) | 8 << dice.randrange(3), dice.randrange(6)
            asked = wire.IRQ_SET.pack(20, flags, index, dice.choice((0, 1, 0xFFFF_FFFF)), dice.choice((0, 1, 2, 2048)))
            return message(Command.DEVICE_SET_IRQS, asked), fds[1 : dice.randrange(1, 4)]
        return write(NOTIFY + 4 * dice.randrange(RINGS + 1), 0, 2)

    def _harm(self, peer: socket.socket, memory: int) -> None:
        """What is left to be done, one of the ways."""
        dice, way = self.dice, self.dice.randrange(len(WAYS))
        self.kinds[WAYS[way]] += 1
        doorbell = write(NOTIFY, 0, 2)[0]
        if way == 0:
            os.ftruncate(memory, dice.choice((0, 4096, 0x10000, 0x20000)))
        if way < 2:
            peer.sendall(doorbell)
            time.sleep(dice.random() * 0.002)
        if way == 2:
            peer.sendall(message(Command.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0)) * FLOOD)
        if way == 3:
            peer.sendall(doorbell * FLOOD + doorbell[: dice.randrange(1, len(doorbell))])
        if way == 4:
            peer.shutdown(socket.SHUT_WR)


ATTACK = Attack(protocol="vfio-user", hostile=HostileClient, witness=witness, look=look_at, each=CHECK_EACH)


def main(arguments: Sequence[str]) -> int:
    """0 when nothing broke."""
    assert __doc__ is not None
    return attack_all(arguments, ATTACK, text=__doc__.partition("\n\n")[2], devices=DEVICES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
