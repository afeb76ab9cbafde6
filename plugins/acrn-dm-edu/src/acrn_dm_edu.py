"""edu: QEMU's educational PCI device (docs/specs/edu of QEMU): liveness, factorials, interrupts and DMA.

Registers are the vCPUs', which hold the function's lock. What takes time is done on an I/O loop, which never takes that
lock: both share ``_lock``, held for a few statements, and never while the guest's memory is used: that may be another
process's, which answers when its guest lets it.
"""

import logging
import threading
from collections.abc import Callable, Sequence

import attrs

from acrn_dm import (
    BarKind,
    DeviceContext,
    DeviceType,
    GuestError,
    IoLoop,
    PciFunction,
    Resources,
    Timer,
    hookimpl,
    option,
)

log = logging.getLogger(__name__)

VENDOR, DEVICE, REVISION, CLASS = 0x1234, 0x11E8, 0x10, 0x00FF00
BAR_SIZE = 1 << 20
IDENTIFICATION = 0x0100_00ED  # version 1.0

IDENT, LIVENESS, FACTORIAL, STATUS, PENDING, RAISE, ACKNOWLEDGE = 0x00, 0x04, 0x08, 0x20, 0x24, 0x60, 0x64
SOURCE, DESTINATION, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
WIDE = 0x80  # from here on accesses may have 8 bytes
COMPUTING, INTERRUPT_WHEN_COMPUTED = 0x01, 0x80  # status
RUN, TO_RAM, INTERRUPT_WHEN_MOVED = 0x01, 0x02, 0x04  # command
FACTORIAL_DONE, DMA_DONE = 0x001, 0x100  # bits of the interrupt status
BUFFER, BUFFER_SIZE = 0x4_0000, 4096  # the device's own memory, as DMA sees it
WORD = 0xFFFF_FFFF
ZERO_FROM = 34  # 34! is a multiple of 2^32, and so are all that follow
MAX_MASK, MAX_LATENCY = (1 << 64) - 1, 3600.0


def _mask(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 0 < value <= MAX_MASK:
        raise ValueError(f"dma_mask {value:#x}: expected 1 to {MAX_MASK:#x}")


def _latency(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0 <= value <= MAX_LATENCY:
        raise ValueError(f"latency {value}: expected 0 to {MAX_LATENCY:.0f} seconds")


@attrs.frozen(kw_only=True)
class EduConfig:
    """Options."""

    dma_mask: int = option(default=0x0FFF_FFFF, validator=_mask, metavar="MASK", help="Address bits that DMA drives.")
    latency: float = option(default=0.0, validator=_latency, metavar="SECONDS", help="Time that a job takes.")


def factorial(number: int) -> int:
    """*number*! modulo 2^32, in bounded time whatever the guest asks for."""
    if number >= ZERO_FROM:
        return 0
    result = 1
    for factor in range(2, number + 1):
        result = result * factor & WORD
    return result


@attrs.define(eq=False)
class Job:
    """Work under way on the loop; ``end`` makes it void, whether it has begun or not."""

    timer: Timer | None = None
    wanted: bool = True

    def end(self) -> None:
        """Forget it."""
        self.wanted = False
        if self.timer is not None:
            self.timer.cancel()


@attrs.frozen(kw_only=True)
class Transfer:
    """A transfer in two steps: what uses the guest's memory, and what then is done with what came."""

    fetch: Callable[[], bytes | None]
    place: Callable[[bytes | None], None]


class EduFunction(PciFunction):
    """The function; BAR 0 is its own handler."""

    def __init__(self, config: EduConfig, context: DeviceContext) -> None:
        super().__init__(context, vendor=VENDOR, device=DEVICE, class_code=CLASS, revision=REVISION)
        self.options = config
        self.add_bar(0, BAR_SIZE, BarKind.MEM32, self)
        self.add_msi()
        self.use_intx()
        self.buffer = bytearray(BUFFER_SIZE)
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._loop: IoLoop | None = None
        self._moving = False
        self._power_on()

    def realize(self, resources: Resources) -> None:
        """Jobs run on the loop that all devices share."""
        self._loop = resources.io_loop("io")
        self._memory = resources.memory

    def reset(self) -> None:
        """What is under way comes to nothing."""
        with self._lock:
            self._power_on()
        super().reset()

    def quiesce(self) -> bool:
        """The guest is gone: no transfer begins, and the one that uses memory ends."""
        with self._lock:
            self._end_jobs()
            return not self._moving

    def close(self) -> None:
        """No job runs any more when this returns."""
        with self._lock:
            self._end_jobs()
        if self._loop is not None:
            self._loop.barrier()

    # BAR 0

    def read(self, offset: int, size: int) -> int:
        """A register; ones where there is none."""
        if not _is_register_access(offset, size):
            return (1 << 8 * size) - 1
        with self._lock:
            return self._registers().get(offset, MAX_MASK) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """A register, if there is one."""
        writers: dict[int, Callable[[int], None]] = {
            LIVENESS: self._set_liveness,
            FACTORIAL: self._compute,
            STATUS: self._set_status,
            RAISE: self._raise,
            ACKNOWLEDGE: self._acknowledge,
            SOURCE: lambda it: self._set_dma("source", it),
            DESTINATION: lambda it: self._set_dma("destination", it),
            COUNT: lambda it: self._set_dma("count", it),
            COMMAND: self._start_dma,
        }
        if offset in writers and _is_register_access(offset, size):
            with self._lock:
                writers[offset](value)

    # All below but ``_transfer``: with ``_lock`` held.

    def _power_on(self) -> None:
        self._end_jobs()
        self._liveness = self._number = self._status = self._pending = 0
        self._dma = {"source": 0, "destination": 0, "count": 0}
        self._command = 0
        self.buffer[:] = bytes(BUFFER_SIZE)

    def _end_jobs(self) -> None:
        for job in self._jobs:
            job.end()
        self._jobs.clear()

    def _registers(self) -> dict[int, int]:
        return {
            IDENT: IDENTIFICATION,
            LIVENESS: self._liveness,
            FACTORIAL: self._number,
            STATUS: self._status,
            PENDING: self._pending,
            SOURCE: self._dma["source"],
            DESTINATION: self._dma["destination"],
            COUNT: self._dma["count"],
            COMMAND: self._command,
        }

    def _set_liveness(self, value: int) -> None:
        self._liveness = ~value & WORD

    def _set_status(self, value: int) -> None:
        self._status = self._status & COMPUTING | value & INTERRUPT_WHEN_COMPUTED

    def _raise(self, bits: int) -> None:
        self._pending |= bits & WORD
        if self._pending:
            self._drive()
            assert self.msi is not None
            self.msi.raise_()  # nothing while MSI is off

    def _acknowledge(self, bits: int) -> None:
        self._pending &= ~bits
        self._drive()

    def _drive(self) -> None:
        assert self.intx is not None
        self.intx.set(bool(self._pending))

    def _set_dma(self, name: str, value: int) -> None:
        if not self._command & RUN:
            self._dma[name] = value

    def _compute(self, number: int) -> None:
        if not self._status & COMPUTING:
            self._number = number
            self._status |= COMPUTING
            self._begin(self._computed)

    def _computed(self) -> None:
        self._number = factorial(self._number)
        self._status &= ~COMPUTING
        if self._status & INTERRUPT_WHEN_COMPUTED:
            self._raise(FACTORIAL_DONE)

    def _start_dma(self, command: int) -> None:
        if command & RUN and not self._command & RUN:
            self._command = command & (RUN | TO_RAM | INTERRUPT_WHEN_MOVED)
            self._begin(self._moved, self._move)

    def _move(self) -> Transfer:
        """What the registers ask for. Raises GuestError, before anything has moved."""
        ours, theirs = self._dma["destination"], self._dma["source"]
        if self._command & TO_RAM:
            ours, theirs = theirs, ours
        count, at = self._dma["count"], ours - BUFFER
        if not (at >= 0 and at + count <= BUFFER_SIZE):
            raise GuestError(f"{count:#x} bytes at {ours:#x} are not within the device's memory")
        if not self.bus_master:
            raise GuestError("bus mastering is off")
        theirs &= self.options.dma_mask
        if self._command & TO_RAM:
            data = bytes(self.buffer[at : at + count])
            return Transfer(fetch=lambda: self._memory.write(theirs, data), place=lambda _: None)

        def place(came: bytes | None) -> None:
            self.buffer[at : at + count] = came or b""

        return Transfer(fetch=lambda: self._memory.read(theirs, count), place=place)

    def _moved(self) -> None:
        self._command &= ~RUN
        if self._command & INTERRUPT_WHEN_MOVED:
            self._raise(DMA_DONE)

    def _begin(self, work: Callable[[], None], plan: Callable[[], Transfer] | None = None) -> None:
        """Have *work* done on the loop, unless a reset comes first; before it the transfer that *plan* tells."""
        assert self._loop is not None
        job = Job()

        def run() -> None:
            place = None if plan is None else self._transfer(job, plan)
            with self._lock:
                self._moving = False
                if job.wanted:
                    self._jobs.remove(job)
                    if place is not None:
                        place()
                    work()

        self._jobs.append(job)
        if self.options.latency:
            job.timer = self._loop.call_later(self.options.latency, run)
        else:
            self._loop.call_soon(run)

    def _transfer(self, job: Job, plan: Callable[[], Transfer]) -> Callable[[], None] | None:
        """Use the guest's memory, without the lock: it may be another process's, whose guest looks at registers before
        it answers. Returns what is left to do with the lock held.
        """
        try:
            with self._lock:
                if not job.wanted:
                    return None
                transfer = plan()
                self._moving = True
            came = transfer.fetch()
        except GuestError as e:
            log.warning("%s: DMA: %s", self.name, e)
            return None
        return lambda: transfer.place(came)


def _is_register_access(offset: int, size: int) -> bool:
    return size == 4 or (size == 8 and offset >= WIDE)


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``edu``."""
    summary = "the educational PCI device of QEMU: registers, interrupts and DMA to write a driver for"
    return [DeviceType(name="edu", summary=summary, config=EduConfig, create=EduFunction)]
