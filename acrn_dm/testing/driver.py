"""The driver side of a virtio device: initialisation (3.1.1), queues with buffers in guest memory, interrupt counts."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, cast

from acrn_dm.contract.types import Device
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.memory.guest_memory import GuestMemory
from acrn_dm.pci.bus import PciBus
from acrn_dm.ring.driver import table_bytes
from acrn_dm.ring.factory import make_driver_ring, ring_format
from acrn_dm.ring.ring import DriverSide
from acrn_dm.testing.guest_pci import GuestFunction
from acrn_dm.testing.heap import GuestHeap
from acrn_dm.testing.register_access import NO_VECTOR, ModernRegisters, Registers
from acrn_dm.virtio.features import MANDATORY

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
INDIRECT_DESC, EVENT_IDX, VERSION_1, PACKED, RING_RESET = 1 << 28, 1 << 29, 1 << 32, 1 << 34, 1 << 40
IN_ORDER, NOTIFICATION_DATA, NOTIF_CONFIG_DATA = 1 << 35, 1 << 38, 1 << 39
CONFIG_VECTOR = 0
RESET_S = 10.0  # a device's reset may take until its host is done
POISON = 0xA5  # fills device-writable buffers before the device gets them


_packed = False  # what ``rings`` says


@contextlib.contextmanager
def rings(form: str) -> Iterator[None]:
    """Have all drivers made meanwhile use rings of *form*, ``split`` or ``packed``, of devices that offer them: a test
    that says nothing of formats is run with either. Legacy drivers have split rings.
    """
    global _packed
    if form not in ("split", "packed"):
        raise ValueError(f"{form!r} is no ring format")
    before, _packed = _packed, form == "packed"
    try:
        yield
    finally:
        _packed = before


class DriverHost(Protocol):
    """The machine that a driver runs in (``SimMachine``): memory, what arrives there, and the way on."""

    vm: SimVm
    bus: PciBus
    memory: GuestMemory
    heap: GuestHeap
    interrupts: Counter[int]

    @property
    def failures(self) -> list[tuple[object, Exception]]:
        """Devices that asked for a reset, and why."""

    def settle(self) -> None:
        """Step the loops until none has anything to do."""

    def take_interrupts(self) -> None:
        """Count what arrived since the last call."""


class Completion(NamedTuple):
    """A chain that came back: what ``send`` returned, the device's count, and all its device-writable bytes."""

    token: int
    written: int
    data: bytes


class DriverQueue:
    """One queue in the driver's hands. ``ring`` is there to be poked."""

    def __init__(self, driver: "VirtioDriver", index: int, ring: DriverSide) -> None:
        self.driver = driver
        self.index = index
        self.ring = ring
        self.quiet = False
        self._kicked_at = ring.published_avail
        self._heap = driver.machine.heap
        self._memory = driver.machine.memory
        self._sent: dict[int, tuple[int, list[tuple[int, int]], list[int]]] = {}  # head -> token, writable, blocks
        self._next_token = 0

    @property
    def in_flight(self) -> int:
        """Chains sent and not yet seen completed."""
        return len(self._sent)

    @property
    def writable_places(self) -> list[tuple[int, int]]:
        """(gpa, length) of the buffers in flight that the device may fill."""
        return [place for _, writable, _ in self._sent.values() for place in writable]

    def send(self, out: Sequence[bytes] = (), in_: Sequence[int] = (), *, indirect: bool = False) -> int:
        """Make one chain of buffers available; returns its token. *out* are contents, *in_* lengths to be filled in."""
        blocks: list[int] = []
        readable = [(self._buffer(blocks, data), len(data)) for data in out]
        writable = [(self._buffer(blocks, bytes([POISON]) * length), length) for length in in_]
        table = None
        if indirect:
            table = self._buffer(blocks, bytes(table_bytes(len(readable) + len(writable))))
        head = self.ring.add_chain(readable, writable, table)
        self.ring.publish()
        token = self._next_token
        self._next_token += 1
        self._sent[head] = (token, writable, blocks)
        return token

    def kick(self, *, force: bool = False) -> bool:
        """Notify the device if it wants that (or by *force*); returns whether it was."""
        old, self._kicked_at = self._kicked_at, self.ring.published_avail
        wanted = self.ring.wants_kick(old)
        if force or wanted:
            self.driver.notify(self.index, self.ring.ahead)
        return force or wanted

    def completed(self) -> list[Completion]:
        """What the device returned since the last call; asks for an interrupt at the next one, unless ``quiet``."""
        done = [self._complete(head, written) for head, written in self.ring.used()]
        if not self.quiet:
            while self.ring.enable_interrupts():
                done += [self._complete(head, written) for head, written in self.ring.used()]
        return done

    def set_quiet(self, quiet: bool) -> None:
        """Ask the device for no interrupts from now on, or for them again."""
        self.quiet = quiet
        if quiet:
            self.ring.disable_interrupts()
        else:
            self.ring.enable_interrupts()

    def transfer(self, out: Sequence[bytes] = (), in_: Sequence[int] = (), *, indirect: bool = False) -> Completion:
        """Send one chain, kick, settle, return its completion. Raises AssertionError unless exactly that came back, and
        what the device raised where it asked for a reset instead.
        """
        token = self.send(out, in_, indirect=indirect)
        self.kick()
        self.driver.machine.settle()
        done = self.completed()
        if not done:
            self.driver.raise_failure()
        assert [c.token for c in done] == [token], f"sent chain {token}, got back {done}"
        return done[0]

    def forget(self) -> None:
        """Take back the buffers of what is in flight: the device is done with them."""
        for _, _, blocks in self._sent.values():
            for block in blocks:
                self._heap.give(block)
        self._sent.clear()

    def _buffer(self, blocks: list[int], data: bytes) -> int:
        gpa = self._heap.take(len(data))
        blocks.append(gpa)
        self._memory.write(gpa, data)
        return gpa

    def _complete(self, head: int, written: int) -> Completion:
        if head not in self._sent:
            raise AssertionError(f"the device returned descriptor {head}, which heads no chain in flight")
        token, writable, blocks = self._sent.pop(head)
        data = b"".join(self._memory.read(gpa, length) for gpa, length in writable)
        for block in blocks:
            self._heap.give(block)
        return Completion(token, written, data)


class VirtioDriver:
    """The driver of one device. With *msix* every queue and configuration changes get their own vectors, while there
    are any.
    """

    def __init__(self, machine: DriverHost, function: GuestFunction, registers: Registers, *, msix: bool) -> None:
        self.machine = machine
        self.function = function
        self.registers = registers
        self.features = 0
        self.wants_packed = _packed
        self.queues: dict[int, DriverQueue] = {}
        if function.vectors:
            function.enable_msix(msix)

    # Initialisation

    @property
    def status(self) -> int:
        """The device status field."""
        return self.registers.read("device_status")

    @status.setter
    def status(self, value: int) -> None:
        self.registers.write("device_status", value)

    def reset(self) -> None:
        """Reset the device and wait until that is done; the driver forgets its queues. Raises AssertionError after
        RESET_S.
        """
        self.status = 0
        until = time.monotonic() + RESET_S
        while self.status:
            assert time.monotonic() < until, "after a reset the status reads 0"
            time.sleep(0.001)
        self.queues = {}
        self.features = 0

    def negotiate(self, features: int | None = None) -> int:
        """Steps 1 to 6 of 3.1.1 with *features* (default: all that are offered but RING_PACKED, so that rings are split
        unless a test asks for others, or is run within ``rings``); returns what was accepted.

        0 means that the device refused FEATURES_OK (a legacy one can't). VERSION_1 is added for a modern device.
        """
        self.reset()
        self.status = ACKNOWLEDGE
        self.status = ACKNOWLEDGE | DRIVER
        wanted = self.registers.offered() & ~PACKED if features is None else features
        if self.wants_packed and not self.registers.legacy:
            wanted |= self.registers.offered() & PACKED
        if self.registers.legacy:
            wanted &= 0xFFFF_FFFF
            self.registers.accept(wanted)
        else:
            wanted |= VERSION_1
            self.registers.accept(wanted)
            self.status = ACKNOWLEDGE | DRIVER | FEATURES_OK
            if not self.status & FEATURES_OK:
                return 0
        self.features = wanted
        return wanted

    def setup_queue(
        self, index: int, *, size: int | None = None, vector: int | None = None, start: int = 0
    ) -> DriverQueue:
        """Give queue *index* a ring (of *size* entries, default the maximum) and enable it. Raises LookupError."""
        maximum = self.registers.queue_size(index)
        if maximum == 0:
            raise LookupError(f"the device has no queue {index}")
        entries = maximum if size is None else size
        lay_out = ring_format(self.features).lay_out
        template = lay_out(0, entries, self.registers.ring_alignment)
        layout = lay_out(self.machine.heap.take(max(template.end, 4096)), entries, self.registers.ring_alignment)
        ring = make_driver_ring(self.features, layout, self.machine.memory, start=start)
        self.registers.map_vector(index, self.default_vector(index) if vector is None else vector)
        self.registers.place_queue(index, layout)
        self.queues[index] = DriverQueue(self, index, ring)
        return self.queues[index]

    def notify(self, index: int, ahead: int = 0) -> None:
        """Notify queue *index*, by its index or as the device names it (NOTIF_CONFIG_DATA); with NOTIFICATION_DATA
        *ahead* goes along, 16 bits that say where the next chain is going to be.
        """
        registers = self.registers
        if not isinstance(registers, ModernRegisters) or not self.features & NOTIFICATION_DATA:
            registers.notify(index)
            return
        named = index
        if self.features & NOTIF_CONFIG_DATA:
            registers.write("queue_select", index)
            named = registers.read("queue_notif_config_data")
        registers.notify_data(index, named, ahead)

    def reset_queue(self, index: int) -> None:
        """Reset queue *index* alone (2.6.1, RING_RESET) and wait until that is done; ``setup_queue`` gives it a ring
        again. What was in flight is forgotten. Raises AssertionError after RESET_S.
        """
        self.registers.write("queue_select", index)
        self.registers.write("queue_reset", 1)
        until = time.monotonic() + RESET_S
        while self.registers.read("queue_reset") or self.registers.read("queue_enable"):
            assert time.monotonic() < until, "after its reset a queue's queue_reset and queue_enable read 0"
            time.sleep(0.001)
        queue = self.queues.pop(index, None)
        if queue is not None:
            queue.forget()

    def start(self, features: int | None = None, *, queues: Iterable[int] | None = None) -> int:
        """The whole of 3.1.1, with all *queues* the device has unless told; returns the accepted features.

        What drivers of this device type must accept is added. Raises AssertionError if the device refuses.
        """
        accepted = self.negotiate(None if features is None else features | self._mandatory)
        assert accepted or self.registers.legacy, "the device refused the features"
        self.registers.map_vector(None, CONFIG_VECTOR)
        for index in self.all_queues() if queues is None else queues:
            self.setup_queue(index)
        self.driver_ok()
        self.machine.settle()
        return accepted

    @property
    def _mandatory(self) -> int:
        """Features that a driver of this device type can't leave out."""
        return MANDATORY.get(self.function.read(0x02, 2) - 0x1040, 0)

    def driver_ok(self) -> None:
        """Set DRIVER_OK."""
        self.status = self.status | DRIVER_OK

    def all_queues(self) -> list[int]:
        """Indices of the queues there are."""
        count = 0
        while self.registers.queue_size(count):
            count += 1
        return list(range(count))

    def queue(self, index: int) -> DriverQueue:
        """A queue that was set up. Raises LookupError, which says what has to come first."""
        if index not in self.queues:
            state = "no queue is set up" if not self.queues else f"queues {sorted(self.queues)} are"
            raise LookupError(f"queue {index}: {state}; call start(), or negotiate() and setup_queue({index})")
        return self.queues[index]

    def raise_failure(self) -> None:
        """Raise what the device failed with, if it wants a reset (DEVICE_NEEDS_RESET)."""
        if not self.status & NEEDS_RESET:
            return
        place = (self.function.slot, self.function.func)
        for device, error in reversed(self.machine.failures):
            bdf = cast(Device, device).context.bdf
            if (bdf.slot, bdf.func) == place:
                raise error

    # Interrupts

    def default_vector(self, index: int) -> int:
        """The vector of a queue: its own behind that of configuration changes; the last one when there are too few."""
        vectors = self.function.vectors
        return min(index + 1, vectors - 1) if vectors else NO_VECTOR

    def interrupts(self, vector: int) -> int:
        """How often MSI-X vector *vector* fired so far; with MSI, which has one message, how often that arrived."""
        self.machine.take_interrupts()
        function = self.function
        return self.machine.interrupts[function.msi_data if function.msi_enabled else function.message_data(vector)]

    def queue_interrupts(self, index: int) -> int:
        """How often the vector of queue *index* fired so far."""
        return self.interrupts(self.default_vector(index))

    @property
    def config_interrupts(self) -> int:
        """How often the configuration vector fired so far."""
        return self.interrupts(CONFIG_VECTOR)

    @property
    def line(self) -> bool:
        """Level of the interrupt line the function's pin is routed to."""
        pin = self.function.read(0x3D, 1) - 1
        routes = {(slot, p): gsi for slot, p, gsi in self.machine.bus.prt()}
        return self.machine.vm.line(routes[self.function.slot, pin])

    # Configuration space

    @property
    def has_config(self) -> bool:
        """Whether the device shows a configuration structure; a legacy one always has the place for it."""
        registers = self.registers
        return not isinstance(registers, ModernRegisters) or registers.config is not None

    def read_config(self, offset: int, length: int) -> bytes:
        """Read device configuration byte by byte, again until the generation stood still (4.1.4.3.2)."""
        while True:
            before = self._generation()
            data = bytes(self.registers.read_config(offset + i, 1) for i in range(length))
            if self._generation() == before:
                return data

    def write_config(self, offset: int, data: bytes) -> None:
        """Write device configuration byte by byte: the access that is right for fields of any width, at any offset, but
        for those that a device takes only as a whole; these are written with ``registers.write_config``.
        """
        for i, byte in enumerate(data):
            self.registers.write_config(offset + i, 1, byte)

    def _generation(self) -> int:
        return 0 if self.registers.legacy else self.registers.read("config_generation")
