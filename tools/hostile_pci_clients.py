"""``python -m tools.hostile_pci_clients [--clients 10000] [--seed N] [DEVICE ...]``: the same over vfio-user.

A process of ``acrn-dm-export vfio-user`` has one virtio device and one client at a time. Clients bring memory,
registers, doorbells and interrupts out of order, bent, repeated, half and with descriptors of the wrong kind, while
rings run on noise and memory is taken away below them. Behind each of them a good one has to be served by the same
device within ten seconds. At the end the process has as many descriptors as before, and has not grown.
"""

import contextlib
import mmap
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.message import Command
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import RingLayout
from tools.hostile_clients import (
    PATIENCE_S,
    WARM,
    Broken,
    Exporter,
    Step,
    Tally,
    attack_all,
    connected,
    refuse_growth,
    settled,
)

DEVICES = ("virtio-rnd", "virtio-blk,mq=2,{folder}/disk", "virtio-net,driver=loop")
MEMORY, RINGS, SIZE, DATA = 1 << 20, 2, 64, 0x80000
BAR, STATUS, NOTIFY, MSIX = 4, 0x14, 0x3000, 2
FEATURES = (0, 1 << 32 | 1 << 33)
FLOOD = 500


def message(command: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A whole one."""
    return wire.encode(7, command, payload, flags=flags)


def write(offset: int, value: int, size: int) -> Step:
    """To a register of the modern BAR; nobody waits for it."""
    data = wire.REGION.pack(offset, BAR, size) + value.to_bytes(size, "little")
    return message(Command.REGION_WRITE, data, wire.NO_REPLY), []


def conversation(memory: int, calls: Sequence[int]) -> Iterator[Step]:
    """What a client says until its rings run."""
    yield message(Command.VERSION, wire.VERSION.pack(0, 0) + b"{}".ljust(100) + b"\0"), []
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

    ram: mmap.mmap

    def read(self, gpa: int, length: int) -> bytes:
        """From its memory."""
        return self.ram[gpa : gpa + length]

    def write(self, gpa: int, data: bytes) -> None:
        """To its memory."""
        self.ram[gpa : gpa + len(data)] = data

    def chain(self, ring: DriverRing, device: str) -> None:
        """A request that *device* answers."""
        if "blk" in device:
            ring.add_chain([(DATA, 16)], [(DATA + 512, 512), (DATA + 1024, 1)])
        else:
            ring.add_chain([], [(DATA, 2048)])


def served(path: Path, device: str) -> float:
    """Seconds until a good client's request was answered. Raises Broken."""
    began, memory, call = time.monotonic(), os.memfd_create("good"), os.eventfd(0, os.EFD_NONBLOCK)
    os.ftruncate(memory, MEMORY)
    try:
        with connected(path) as peer, mmap.mmap(memory, MEMORY) as ram:
            client = GoodClient(ram)
            ring = DriverRing(client, RingLayout.at(0x10000, SIZE))
            client.chain(ring, device)
            ring.publish()
            for data, fds in conversation(memory, [call]):
                socket.send_fds(peer, [data], fds)
            peer.sendall(write(NOTIFY, 0, 2)[0])
            if "net" in device:  # its frames come from nowhere: to be asked is answer enough
                _await_answer(peer)
                return time.monotonic() - began
            while not ring.used():
                if time.monotonic() > began + PATIENCE_S:
                    raise Broken(f"a good client was not served within {PATIENCE_S:g} s")
                time.sleep(0.0005)
            return time.monotonic() - began
    except OSError as e:
        raise Broken(f"a good client was not served: {e}") from e
    finally:
        os.close(memory)
        os.close(call)


def _await_answer(peer: socket.socket) -> None:
    """To the last of some questions. Raises OSError."""
    peer.sendall(message(Command.REGION_READ, wire.REGION.pack(STATUS, BAR, 1)))
    data = b""
    while not data.endswith(wire.REGION.pack(STATUS, BAR, 1) + b"\x0f"):
        part = peer.recv(4096)
        if not part:
            raise OSError("the connection ended")
        data += part


@attrs.define(eq=False)
class HostileClient:
    """One of them, as the dice fall."""

    dice: random.Random

    def attack(self, path: Path) -> None:
        """Connect, do harm, leave. Raises Broken when the server keeps it waiting."""
        dice, memory = self.dice, os.memfd_create("hostile")
        fds = [memory, *(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(RINGS)), os.open("/", os.O_RDONLY)]
        os.ftruncate(memory, MEMORY)
        for at in (0x10000, 0x20000):
            self._fill(memory, at)
        try:
            with connected(path) as peer, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for data, beside in self._bent(list(conversation(memory, fds[1:-1])), fds):
                    socket.send_fds(peer, [data], beside)
                for _ in range(dice.randrange(40)):
                    data, beside = self._harm(memory)
                    socket.send_fds(peer, [data], beside)
                self._leave(peer, memory)
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
        harm = dice.choice((0.0, 0.0, 0.05, 0.3))
        for data, beside in steps:
            if dice.random() >= harm:
                yield data, beside
                continue
            kind = dice.randrange(5)
            if kind == 0:
                continue  # left out
            if kind == 1:
                yield from [(data, beside)] * dice.randint(2, 5)
            elif kind == 2:
                bent = bytearray(data)
                bent[dice.randrange(len(bent))] = dice.randrange(256)
                yield bytes(bent), beside
            elif kind == 3:
                yield data, [dice.choice(fds) for _ in range(dice.randint(0, 8))]
            else:
                yield (
                    message(dice.choice((*Command, 0, 14, 99)), dice.randbytes(dice.choice((0, 8, 16, 20, 32)))),
                    beside,
                )

    def _harm(self, memory: int) -> Step:
        """While rings run."""
        dice, page = self.dice, 4096
        at, size = page * dice.randrange(MEMORY // page), page * dice.choice((1, 2, 64))
        kind = dice.randrange(7)
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
        return write(NOTIFY + 4 * dice.randrange(RINGS + 1), 0, 2)

    def _leave(self, peer: socket.socket, memory: int) -> None:
        """One of the ways out."""
        dice, way = self.dice, self.dice.randrange(5)
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


class PciExporter(Exporter):
    """The process, whose one device is attacked and used in turn."""

    def start(self) -> None:
        """Start it, and wait until it listens. Raises Broken."""
        (self.folder / "disk").write_bytes(bytes(1 << 20))
        words = [self.device.format(folder=self.folder), f"--socket-path={self.attacked}"]
        with (self.folder / "log").open("wb") as log:
            argv = [sys.executable, "-m", self.module, "vfio-user", *words]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self.attacked.exists():
            self.check_alive()
            if time.monotonic() > deadline:
                raise Broken("it did not start")
            time.sleep(0.02)


def run(module: str, device: str, folder: Path, clients: int, seed: int) -> Tally:
    """Attack *device* with *clients*, whose dice are of seeds from *seed* on. Raises Broken."""
    exporter, tally = PciExporter(module, device, folder), Tally()
    exporter.start()
    try:
        for n in range(clients):
            HostileClient(random.Random(seed + n)).attack(exporter.attacked)
            try:
                tally.slowest = max(tally.slowest, served(exporter.attacked, device))
            finally:
                exporter.check_alive()
            tally.clients, tally.answers = n + 1, tally.answers + 1
            if n + 1 == min(WARM, clients // 2):
                tally.before = exporter.descriptors(), exporter.mebibytes()
        tally.after = settled(exporter, tally.before[0])
        refuse_growth(tally)
        exporter.stop()
    except Broken as e:
        raise Broken(f"client {tally.clients}, seed {seed + tally.clients}: {e}") from e
    finally:
        if exporter.process is not None and exporter.process.poll() is None:
            exporter.process.kill()
            exporter.process.wait()
    return tally


def main(arguments: Sequence[str]) -> int:
    """0 when nothing broke."""
    assert __doc__ is not None
    text = __doc__.partition("\n\n")[2]
    return attack_all(arguments, run, text=text, devices=DEVICES, answers="good ones served")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
