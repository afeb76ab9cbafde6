"""The bench: one device in a machine of its own, and a driver of it, as a rule gets them."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.ring.features import PACKED
from acrn_dm.testing.clock import VirtualClock
from acrn_dm.testing.conformance import setup as ways
from acrn_dm.testing.conformance.outside import Outside
from acrn_dm.testing.conformance.probes import Shape, probes
from acrn_dm.testing.conformance.setup import INTX, LEGACY, MSI, MSIX, Setup
from acrn_dm.testing.conformance.subject import SLOT, Subject, virtio_id
from acrn_dm.testing.conformance.table import PCI, NotApplicable
from acrn_dm.testing.conformance.watch import Watch
from acrn_dm.testing.driver import NEEDS_RESET, VERSION_1, Completion, DriverQueue, VirtioDriver
from acrn_dm.testing.guest_pci import GuestFunction
from acrn_dm.testing.machine import SimMachine
from acrn_dm.testing.register_access import LegacyRegisters, ModernRegisters
from acrn_dm.virtio import features
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.pci.transport import VirtioPci

LATE_S = 2.0  # what a helper thread takes at most for a small request, on a busy machine
TICK_S = 0.0005
PROBE_S = 0.05  # how long a queue that nothing is known of is given
MQ = {"net": 1 << 22, "blk": 1 << 12}


class Bench:
    """A device in ``machine``, ``function`` its guest's view of it; leave by ``close``. ``watch`` hears what
    it raises.
    """

    def __init__(self, subject: Subject, setup: Setup, watch: Watch) -> None:
        self.subject = subject
        self.setup = setup
        self.watch = watch
        self._threads = threading.active_count()
        self._others: list[Bench] = []
        self._closed = False
        self.machine = SimMachine(plugins=subject.plugins, virtio_msi=setup.interrupts == MSI, clock=VirtualClock())
        try:
            self.built = subject.build(self.machine)
            self.function: GuestFunction = self.machine.function(SLOT)
        except BaseException:
            self.machine.close()
            raise
        self._interrupts = 0

    # What it is

    @property
    def outside(self) -> Any:
        """What the caller gave to see the other side of the device by. Raises NotApplicable if that is nothing."""
        if self.subject.outside is None:
            raise NotApplicable("no outside given")
        return self.subject.outside

    @property
    def kind(self) -> str:
        """The kind of device, as in the table."""
        return self.subject.kind

    @property
    def pci(self) -> Any:
        """The function as the host has it: ``pause`` and options are there."""
        return next(f for f in self.machine.bus.functions if f.context.bdf.slot == SLOT)

    @property
    def device(self) -> VirtioDevice:
        """The device as the host has it. Raises NotApplicable for a function that is no virtio device."""
        function = self.pci
        if not isinstance(function, VirtioPci):
            raise NotApplicable("no virtio device")
        device: VirtioDevice = function.device
        return device

    @functools.cached_property
    def device_id(self) -> int:
        """The virtio device id. Raises NotApplicable without one."""
        found = virtio_id(self.function)
        if found is None:
            raise NotApplicable("no virtio device")
        return found

    @functools.cached_property
    def modern(self) -> ModernRegisters:
        """The modern registers, whatever the setup's driver uses."""
        return ModernRegisters(self.function)

    @functools.cached_property
    def offered(self) -> int:
        """Feature bits offered to the setup's driver."""
        if self.kind == PCI:
            raise NotApplicable("no virtio device")
        return LegacyRegisters(self.function).offered() if self.setup.legacy else self.modern.offered()

    @property
    def legacy(self) -> bool:
        """Whether the device has a legacy interface."""
        return LEGACY in self.subject.axes["transport"]

    @property
    def features(self) -> int:
        """What the setup's driver accepts: all, but MQ where it uses one pair of queues."""
        wanted = self.offered
        if self.setup.pairs == 1:
            wanted &= ~MQ.get(self.kind, 0)
        return self.in_format(features.prune(self.device_id, wanted))

    def in_format(self, wanted: int) -> int:
        """*wanted* with the ring format of the setup, whatever it says of that."""
        return wanted | PACKED if self.setup.ring == ways.PACKED else wanted & ~PACKED

    @property
    def config(self) -> bytes:
        """The device's configuration space as its driver reads it now."""
        return self.driver().read_config(0, self.config_size)

    @property
    def config_size(self) -> int:
        """Bytes of configuration space that the device announces."""
        return 0 if self.modern.config is None else self.modern.config.length

    def offers(self, *names: str) -> bool:
        """Whether all features called *names* are offered, ``EVENT_IDX`` or ``VIRTIO_F_EVENT_IDX``."""
        there = features.names(self.device_id, self.modern.offered())
        return all(name.rpartition("_F_")[2] in there for name in names)

    # Drivers

    def driver(self) -> VirtioDriver:
        """A driver of the setup's transport and interrupts, which has not touched the device yet."""
        if self.kind == PCI:
            raise NotApplicable("no virtio device")
        msix = self.setup.interrupts == MSIX
        make = self.machine.driver_legacy if self.setup.legacy else self.machine.driver
        made = make(SLOT, msix=msix)
        if self.setup.interrupts == MSI:
            made.function.enable_msi()
        return made

    def start(self, accepted: int | None = None, *, queues: list[int] | None = None) -> VirtioDriver:
        """A driver that has set DRIVER_OK, with *accepted* features (default ``features``) and *queues* (default
        ``queues``).
        """
        driver = self.driver()
        wanted = self.features if accepted is None else self.in_format(accepted)
        driver.start(wanted, queues=self.queues(driver) if queues is None else queues)
        self._interrupts = self._messages()
        return driver

    def restart(self, driver: VirtioDriver, accepted: int | None = None) -> VirtioDriver:
        """Reset by *driver* and start again."""
        driver.start(self.features if accepted is None else self.in_format(accepted), queues=self.queues(driver))
        self._interrupts = self._messages()
        return driver

    def queues(self, driver: VirtioDriver) -> list[int]:
        """Queues that the setup's driver uses: of network cards so many pairs and the control queue, of disks so many
        request queues, else all.
        """
        there = driver.all_queues()
        if self.kind == "blk":
            return there[: self.setup.pairs]
        if self.kind == "net":
            n = 2 * self.setup.pairs
            return [*there[:n], *there[n : n + 1]]
        return there

    def another(self, setup: Setup | None = None) -> "Bench":
        """A second instance in a machine of its own, closed with this one. Raises NotApplicable where what is behind
        the device is for one only.
        """
        try:
            made = Bench(self.subject, setup or self.setup, self.watch)
        except (ConfigError, HostError) as e:
            raise NotApplicable(f"a second one can't be made beside the first: {e}") from e
        self._others.append(made)
        return made

    # Chains

    def answering(self, driver: VirtioDriver) -> list[tuple[DriverQueue, Shape]]:
        """Queues of *driver* that return a chain of that shape at once. Raises NotApplicable if none does."""
        answers = self.answers
        found = [(queue, answers[i]) for i, queue in driver.queues.items() if i in answers]
        if not found:
            raise NotApplicable("no queue returns a chain by itself")
        return found

    def exchange_all(self, driver: VirtioDriver) -> None:
        """See that the device still works: a chain on each queue that returns any."""
        for index, queue in driver.queues.items():
            if index in self.answers:
                self.exchange(queue, self.answers[index])

    @property
    def answers(self) -> dict[int, Shape]:
        """Queue -> the chain that it returns by itself."""
        return self.subject.answers[self.setup.pairs]

    def probe(self) -> dict[int, Shape]:
        """Send one chain of each shape to each queue, each to a driver of its own; see which come back."""
        driver = self.start()
        found: dict[int, Shape] = {}
        for index in list(driver.queues):
            for shape in probes(self.kind):
                queue = driver.queue(index)
                queue.send(shape.out, shape.in_)
                queue.kick()
                came = self.collect(queue, 1, PROBE_S)
                broken = bool(driver.status & NEEDS_RESET)
                if came or broken or queue.in_flight:
                    self.restart(driver)
                if came and not broken:
                    found[index] = shape
                    break
        return found

    def collect(self, queue: DriverQueue, count: int, limit_s: float = LATE_S) -> list[Completion]:
        """Let the device work until it has returned *count* chains; then what it returned. Less when it takes longer
        than a helper thread would, *limit_s*.
        """
        done: list[Completion] = []

        def look() -> bool:
            done.extend(queue.completed())
            return len(done) >= count

        self.wait(look, limit_s)
        look()
        return done

    def wait(self, true: Callable[[], bool], limit_s: float = LATE_S) -> bool:
        """Let the device work until *true*, and then until it is idle; for *limit_s* at most, of its timers' time and,
        where it has helper threads, of the host's as well.
        """
        self.machine.settle()
        until, step, passed = time.monotonic() + limit_s, TICK_S, 0.0
        while not true():
            if isinstance(self.subject.outside, Outside) and self.subject.outside.make_room():
                self.machine.settle()
                continue
            helped = threading.active_count() > self._threads and time.monotonic() < until
            if passed < limit_s:
                self.machine.advance(step)
                passed, step = passed + step, 2 * step
            elif not helped:
                return False
            if helped:
                time.sleep(TICK_S)
            self.machine.settle()
        self.machine.settle()
        return True

    def exchange(self, queue: DriverQueue, shape: Shape, *, indirect: bool = False) -> Completion:
        """Send one chain, kick, and return its completion. Raises AssertionError unless exactly that came back."""
        token = queue.send(shape.out, shape.in_, indirect=indirect)
        queue.kick()
        done = self.collect(queue, 1)
        came = [c.token for c in done]
        assert came == [token], f"queue {queue.index}: sent chain {token} ({shape}), got back {came}"
        return done[0]

    # Interrupts

    def notified(self, driver: VirtioDriver) -> int:
        """How often the device interrupted since the last look or start, by whatever the setup has; the ISR is read.

        By pin it is 1 or 0: a level counts nothing.
        """
        if self.setup.interrupts == INTX:
            line = driver.line
            isr = driver.registers.read_isr()
            assert line == bool(isr), f"the pin is {line} with ISR {isr:#x}"
            return int(line)
        before, self._interrupts = self._interrupts, self._messages()
        driver.registers.read_isr()
        return self._interrupts - before

    def _messages(self) -> int:
        self.machine.take_interrupts()
        return sum(self.machine.interrupts.values())

    # Pause

    def pause(self) -> None:
        """The host stops the device between two requests, as it does when a queue joins or the machine rests."""
        function = self.pci
        with function.lock:
            function.data_plane.pause()

    def resume(self) -> None:
        """It goes on where it was."""
        function = self.pci
        with function.lock:
            function.data_plane.resume()

    # The end

    def close(self) -> None:
        """Close the machine; what the device raises meanwhile is the watch's. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for other in self._others:
            other.close()
        with contextlib.suppress(HostError):
            for _, error in self.machine.failures:
                self.watch.note(error)
        try:
            self.machine.close()
        except AssertionError as e:  # exceptions escaped into accesses; the log has each, at a bounded rate
            if not self.watch.found:
                self.watch.note(e)
        except Exception as e:  # a device's own, closing
            self.watch.note(e)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def bench(subject: Subject, setup: Setup) -> Iterator[Bench]:
    """A watched bench, closed at the end. The first one for so many pairs finds out which queues answer: before, as
    what stands behind a device may be for one only.
    """
    with Watch() as watch:
        if subject.kind != PCI and setup.pairs not in subject.answers:
            first = Setup(ring=_first(subject, "ring"), interrupts=_first(subject, "interrupts"), pairs=setup.pairs)
            with Bench(subject, first, watch) as other:
                subject.answers[setup.pairs] = other.probe()
        with Bench(subject, setup, watch) as made:
            yield made


def _first(subject: Subject, axis: str) -> str:
    return str(subject.axes[axis][0])


__all__ = ("Bench", "VERSION_1", "bench")
