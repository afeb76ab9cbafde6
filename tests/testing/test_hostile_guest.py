"""A guest that does everything wrong, against a machine with every kind of device.

It reads and writes configuration space, BARs, ports and memory at random, fills rings with random bytes, kicks, moves
BARs, and switches decoding and MSI-X on and off, all at once and in any order. What has to hold: no exception leaves a
device, no access takes long, and afterwards a well-behaved driver finds every device usable, without a reboot and with
one. ``ACRN_DM_FUZZ`` is the number of guests; each is a seed, so a failure repeats.
"""

import contextlib
import logging
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import acrn_dm_rng
import attrs
import pytest

from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices import hostbridge, lpc, virtio_blk, virtio_console
from acrn_dm.devices.uart.uart16550 import Uart16550
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.pci.config_space import BAR0, COMMAND
from acrn_dm.pci.function import PciFunction
from acrn_dm.testing import SimMachine
from acrn_dm.virtio.queue_config import QueueConfig
from tests.devices.virtio_net.net_rig import FakeTap

SEEDS = range(int(os.environ.get("ACRN_DM_FUZZ", "12")))
STEPS = 800
LIMIT_S = 60.0
RAM = 16 << 20
BLK, NET, CONSOLE, RNG, SECOND = 2, 3, 4, 5, 6
VIRTIO = (BLK, NET, CONSOLE, RNG, SECOND)
LENGTHS = (0, 1, 8, 16, 20, 64, 512, 513, 4096)
ODD = (0, 1, 0xFFFF, 0x7FFF, 0x8000, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, (1 << 64) - 1, 1 << 52)


@attrs.define(eq=False)
class Hostile:
    """One guest and its machine."""

    machine: SimMachine
    functions: dict[int, PciFunction]
    peer: socket.socket
    dice: random.Random
    threads: bool = False

    def number(self, size: int) -> int:
        """A value of *size* bytes; half of them at an edge."""
        value = self.dice.choice(ODD) if self.dice.random() < 0.5 else self.dice.getrandbits(8 * size)
        return value & ((1 << 8 * size) - 1)

    def gpa(self) -> int:
        """An address: mostly in RAM, sometimes a device's, sometimes nowhere."""
        return self.dice.choice((self.dice.randrange(RAM), self.dice.randrange(RAM) & ~0xFFF, RAM - 8, self.number(8)))

    def config(self) -> None:
        """Configuration mechanism 1, any function, mostly registers that do something."""
        vm, dice = self.machine.vm, self.dice
        register = dice.choice((COMMAND, BAR0, BAR0 + 4, BAR0 + 16, BAR0 + 20, 0x3C, dice.randrange(256)))
        slot = dice.choice((0, 1, *VIRTIO, dice.randrange(32)))
        enable = 1 << 31 if dice.random() < 0.95 else 0
        vm.pio_write(0xCF8, 4, enable | slot << 11 | dice.choice((0, 0, 0, 1, 7)) << 8 | register & 0xFC)
        size = dice.choice((1, 2, 4))
        port = 0xCFC + (register & 3 if dice.random() < 0.7 else dice.randrange(4))
        if dice.random() < 0.4:
            vm.pio_read(port, size)
        else:
            vm.pio_write(port, size, self.number(size))

    def ecam(self) -> None:
        """The memory-mapped window, any width and alignment."""
        at = 0xE000_0000 + (self.dice.randrange(1 << 20) if self.dice.random() < 0.3 else self.dice.randrange(8) << 15)
        self.memory_access(at + self.dice.randrange(0x110))

    def bar(self) -> None:
        """Inside (or just behind) a BAR, wherever the guest has put it."""
        function = self.functions[self.dice.choice(VIRTIO)]
        bar = self.dice.choice([b for b in function.bars.values() if b.mapped] or [None])
        if bar is None:
            return
        near = (0x14, 0x16, 0x18, 0x1C, 0x12, 0x10, 0x1000, 0x2000, 0x3000, 0x8000, bar.size - 1)
        offset = self.dice.choice((*near, self.dice.randrange(64), self.dice.randrange(bar.size))) % bar.size
        (self.port_access if bar.is_io else self.memory_access)(bar.base + offset)

    def port_access(self, port: int) -> None:
        size = self.dice.choice((1, 2, 4))
        port = min(port, (1 << 16) - size)
        if self.dice.random() < 0.4:
            self.machine.vm.pio_read(port, size)
        else:
            self.machine.vm.pio_write(port, size, self.number(size))

    def memory_access(self, gpa: int) -> None:
        size = self.dice.choice((1, 2, 4, 8))
        gpa = min(gpa, (1 << 52) - size)
        if self.dice.random() < 0.4:
            self.machine.vm.mmio_read(gpa, size)
        else:
            self.machine.vm.mmio_write(gpa, size, self.number(size))

    def port(self) -> None:
        """Any port, mostly those of the platform."""
        known = (0x60, 0x64, 0x70, 0x71, 0x80, 0xB2, 0x3F8, 0x3F9, 0x3FD, 0x400, 0x402, 0x408, 0xCF8, 0xCF9, 0xCFC)
        self.port_access(self.dice.choice((*known, self.dice.randrange(1 << 16))))

    def anywhere(self) -> None:
        """Any address that is not RAM."""
        self.memory_access(
            self.dice.choice((0x8000_0000, 0xE000_0000, 0xFEC0_0000, 1 << 32)) + self.dice.randrange(8192)
        )

    def negotiate(self) -> None:
        """Bring a device up as far as it goes, with queues anywhere; sometimes through the legacy registers."""
        function = self.functions[self.dice.choice(VIRTIO)]
        self.machine.bus.config_write(function.context.bdf, COMMAND, 2, 7)  # which holds the function's lock
        self._legacy(function) if self.dice.random() < 0.3 else self._modern(function)

    def _modern(self, function: PciFunction) -> None:
        bar = function.bars[4]
        if not bar.mapped:
            return

        def write(offset: int, size: int, value: int) -> None:
            self.machine.vm.mmio_write(
                min(bar.base + offset, (1 << 52) - size), size, value
            )  # others move it meanwhile

        write(0x14, 1, 0)
        for select, value in ((1, 1), (0, self.dice.choice((0, 0x3000_0000, 0x3000_FFFF, self.number(4))))):
            write(0x08, 4, select)
            write(0x0C, 4, value)
        write(0x14, 1, 3)
        write(0x14, 1, 11)
        for queue in range(self.dice.randrange(7)):
            write(0x16, 2, queue)
            if self.dice.random() < 0.5:
                write(0x18, 2, self.dice.choice((1, 2, 8, 16, 64, 0, 3, 0x8000)))
            write(0x1A, 2, self.dice.choice((0, 1, 2, 0xFFFF)))
            for offset in (0x20, 0x28, 0x30):
                at = self.gpa() if self.dice.random() < 0.02 else self.dice.randrange(RAM - 0x8000)
                write(offset, 4, at & 0xFFFF_FFF0)
                write(offset + 4, 4, at >> 32 & 0xFFFF_FFFF)
            write(0x1C, 2, 1)
        write(0x14, 1, 15)

    def _legacy(self, function: PciFunction) -> None:
        dice = self.dice
        bar = function.bars.get(0)
        if bar is None or not bar.mapped:
            return
        for queue in range(self.dice.randrange(4)):
            self.machine.vm.pio_write(bar.base + 14, 2, queue)
            self.machine.vm.pio_write(
                bar.base + 8, 4, self.dice.choice((0, *dice.choices(range((RAM >> 12) - 8), k=8), self.number(4)))
            )
        self.machine.vm.pio_write(bar.base + 18, 1, self.dice.choice((0, 3, 7, 0x87)))

    def ring(self) -> None:
        """Fill a ring: mostly with chains that make sense, sometimes with anything; then kick."""
        function = self.functions[self.dice.choice(VIRTIO)]
        queues = [q for q in function.core.queues if q.enabled]  # type: ignore[attr-defined]
        if not queues:
            return
        queue = self.dice.choice(queues)
        (self.chains if self.dice.random() < 0.8 else self.garbage)(queue)
        if function.bars[4].mapped:
            self.store(function.bars[4].base + 0x3000 + 4 * queue.index, 2, queue.index)
        if self.dice.random() < 0.5:
            self.settle()

    def chains(self, queue: QueueConfig) -> None:
        """Chains of up to four buffers whose bytes mean something to some device."""
        avail = int.from_bytes(self.peek(queue.avail + 2, 2), "little")
        for n in range(self.dice.choice((1, 1, 2, 8))):
            out, in_ = self.dice.choice(((1, 1), (0, 1), (1, 0), (2, 2), (3, 1), (2, 1), (0, 3)))
            head = 4 * (avail + n) % queue.size
            for i in range(out + in_):
                flags = (i < out + in_ - 1) | 2 * (i >= out)
                length = self.dice.choice(LENGTHS[1:] * 4 + LENGTHS)
                if i < out:
                    length = len(payload := self.payload(i))
                    self.poke(at := self.dice.randrange(RAM - 8192), payload)
                else:
                    at = self.gpa() if self.dice.random() < 0.05 else self.dice.randrange(RAM - (1 << 17))
                entry = struct.pack("<QIHH", at, length, flags, (head + i + 1) % queue.size)
                self.poke(queue.desc + 16 * ((head + i) % queue.size), entry)
            self.poke(queue.avail + 4 + 2 * ((avail + n) % queue.size), head.to_bytes(2, "little"))
            self.poke(queue.avail + 2, (avail + n + 1 & 0xFFFF).to_bytes(2, "little"))

    def payload(self, place: int) -> bytes:
        """What a driver might say first, or data."""
        dice = self.dice
        if place or dice.random() < 0.1:
            return dice.randbytes(dice.choice(LENGTHS) & 0xFFF)
        block = struct.pack(
            "<IIQ", dice.choice((0, 1, 4, 5, 8, 11, 13, 2)), 0, dice.choice((0, 1, 2047, 2048, self.number(8)))
        )
        control = struct.pack(
            "<IHH", dice.choice((0, 1, 2, 16, self.number(4))), dice.randrange(9), dice.choice((0, 1))
        )
        packet = struct.pack(
            "<BBHHHHH",
            *(dice.choice((0, 1, 3, 4, 0x80, 0xFF)) for _ in range(2)),
            *dice.choices((0, 14, 34, 0xFFFF), k=5),
        )
        segment = struct.pack(
            "<QII", dice.choice((0, 2047, self.number(8))), dice.choice((1, 8, self.number(4))), dice.randrange(3)
        )
        return dice.choice((block, control, packet + dice.randbytes(60), block + segment, block + bytes(512)))

    def garbage(self, queue: QueueConfig) -> None:
        """Random bytes, or descriptors that nearly make sense."""
        for index in range(min(queue.size, 16)):
            flags = self.dice.choice((0, 1, 2, 3, 4, 5, 6, 0xFFFF))
            length = self.dice.choice((*LENGTHS, self.number(4)))
            entry = struct.pack("<QIHH", self.gpa(), length, flags, self.dice.randrange(queue.size + 1))
            self.poke(queue.desc + 16 * index, entry)
            self.poke(queue.avail + 4 + 2 * index, self.dice.randrange(queue.size + 1).to_bytes(2, "little"))
        self.poke(queue.avail, self.dice.randbytes(2))
        idx = self.dice.choice((1, 2, 5, queue.size, self.number(2)))
        self.poke(queue.avail + 2, idx.to_bytes(2, "little"))

    def peek(self, gpa: int, length: int) -> bytes:
        return self.machine.memory.read(gpa, length) if 0 <= gpa <= RAM - length else bytes(length)

    def store(self, gpa: int, size: int, value: int) -> None:
        """A store; another vCPU may have moved the BAR behind the address space meanwhile."""
        self.machine.vm.mmio_write(min(gpa, (1 << 52) - size), size, value)

    def poke(self, gpa: int, data: bytes) -> None:
        if 0 <= gpa <= RAM - len(data):
            self.machine.memory.write(gpa, data)

    def scribble(self) -> None:
        """Random bytes anywhere in RAM."""
        self.poke(self.dice.randrange(RAM), self.dice.randbytes(self.dice.choice((1, 2, 64, 4096))))

    def kick(self) -> None:
        """Any notify register, also of queues that are not there."""
        bars = self.functions[self.dice.choice(VIRTIO)].bars
        if self.dice.random() < 0.3 and 0 in bars and bars[0].mapped:
            self.machine.vm.pio_write(bars[0].base + 16, 2, self.dice.choice((0, 1, 2, 3, 0xFFFF)))
        elif bars[4].mapped:
            at = bars[4].base + 0x3000 + 4 * self.dice.choice((0, 1, 2, 3, 4, 40))
            self.store(at, self.dice.choice((1, 2, 4)), self.number(2))

    def settle(self) -> None:
        """The device model's turn, unless its loops have threads of their own."""
        if not self.threads:
            self.machine.settle()

    def frame(self) -> None:
        """A frame for the network card, of any shape."""
        with contextlib.suppress(BlockingIOError):
            self.peer.send(self.dice.randbytes(self.dice.choice((1, 12, 13, 26, 72, 1514, 3000))))

    def misbehave(self, steps: int) -> None:
        """Do *steps* of all of it."""
        common: tuple[Callable[[], None], ...] = (self.config, self.bar, self.kick, self.negotiate, *[self.ring] * 5)
        rare = (self.ecam, self.port, self.anywhere, self.scribble, self.settle, self.frame)
        for _ in range(steps):
            self.dice.choice(common if self.dice.random() < 0.7 else rare)()

    def tidy(self) -> None:
        """What firmware does for the next kernel: BARs where they were, decoding on. Devices stay as they are."""
        for function in self.functions.values():
            bdf = function.context.bdf
            for bar in function.bars.values():
                for i, register in enumerate(bar.registers):
                    value = bar.assigned >> 32 * i & 0xFFFF_FFFF
                    self.machine.bus.config_write(bdf, register, 4, value)
            self.machine.bus.config_write(bdf, COMMAND, 2, 7)


@contextmanager
def hostile(directory: Path, seed: int) -> Iterator[Hostile]:
    """A machine with all built-in devices, the entropy plugin, and a second disk as a function of its own."""
    image = directory / "disk.img"
    image.write_bytes(bytes(1 << 20))
    near, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    peer.setblocking(False)
    with ExitStack() as stack:
        stack.enter_context(peer)
        tap = FakeTap(os.dup(near.fileno()), True)
        near.close()

        def net(context: DeviceContext) -> NetDevice:
            return NetDevice(NetConfig.from_string("tap=t0"), context, lambda name: tap)

        m = stack.enter_context(
            SimMachine(
                memory=RAM, virtio_msi=seed % 4 == 3, plugins=[hostbridge, lpc, virtio_blk, virtio_console, acrn_dm_rng]
            )
        )
        log = directory / "console.log"
        functions = {
            0: m.add("hostbridge", slot=0),
            1: m.add("lpc", slot=1),
            BLK: m.add("virtio-blk", f"{image},discard=64:4:1,share=on", slot=BLK),
            NET: m.add(net, slot=NET),
            CONSOLE: m.add("virtio-console", f"@file:a={log},pty:b", slot=CONSOLE),
            RNG: m.add("virtio-rnd", slot=RNG),
            SECOND: m.add("virtio-blk", f"mq=2,{image},ro,share=on", slot=SECOND, func=1),
        }
        m.machine.dispatch.pio.register(0x3F8, 8, Uart16550(lambda level: None), "COM1")
        m.start()
        yield Hostile(m, functions, peer, random.Random(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_guest_breaks_nothing_but_itself(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)
    start = time.monotonic()
    with hostile(tmp_path, seed) as guest:
        guest.misbehave(STEPS)
        guest.machine.settle()
        assert guest.machine.dispatch.errors == 0, caplog.text
        guest.tidy()
        check_usable(guest)
        guest.misbehave(50)
        guest.machine.reset()
        check_usable(guest)
    assert not [r for r in caplog.records if r.exc_info], caplog.text
    assert time.monotonic() - start < LIMIT_S


@pytest.mark.parametrize("seed", SEEDS[::4])
def test_several_hostile_vcpus_at_once_break_nothing_either(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in production: I/O loops and main loop on threads, and the vCPUs undo each other's work."""
    caplog.set_level(logging.WARNING)
    with hostile(tmp_path, seed) as guest:
        loops = [*guest.machine.io_loops.values(), guest.machine.main_loop]
        vcpus = [attrs.evolve(guest, dice=random.Random(1000 * seed + n), threads=True) for n in range(3)]
        for loop in loops:
            loop.start()
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(vcpu.misbehave, STEPS) for vcpu in vcpus]:
                done.result(LIMIT_S)
        for loop in loops:
            loop.stop()
        guest.machine.settle()
        assert guest.machine.dispatch.errors == 0, caplog.text
        guest.tidy()
        check_usable(guest)
    assert not [r for r in caplog.records if r.exc_info], caplog.text


def check_usable(guest: Hostile) -> None:
    """A driver that behaves gets its work done by each device."""
    guest.machine.heap = type(guest.machine.heap)(1 << 20, RAM)
    for slot, function in guest.functions.items():
        if slot not in VIRTIO:
            continue
        driver = guest.machine.driver(slot, function.context.bdf.func)
        driver.start()
        assert not driver.status & 64, f"slot {slot} wants a reset at once"
        if slot in (BLK, SECOND):
            assert driver.queue(0).transfer([bytes(16)], [512, 1]).data[-1] == 0
        elif slot == RNG:
            assert driver.queue(0).transfer([], [16]).written == 16
        elif slot == NET:
            assert driver.queue(1).transfer([bytes(12 + 60)]).written == 0
        else:
            assert driver.queue(1).transfer([b"hello"]).written == 0
        driver.reset()
