"""A virtio device as a PCI function (spec 4.1): identity, BARs, capabilities, and the wiring between them.

===== ============= =============================================================
BAR 0 I/O           legacy registers (transitional devices only)
BAR 1 memory        MSI-X table and pending bits: one vector per queue, one for configuration changes
BAR 4 memory 64 bit modern structures, see ``modern``
===== ============= =============================================================
"""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import attrs

from acrn_dm.base.bus import Handler
from acrn_dm.base.errors import AcrnDmError, PluginError
from acrn_dm.base.events.io_threads import DeviceLoops
from acrn_dm.base.irq import Space
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import BackendType, DeviceContext, device_loops
from acrn_dm.pci.bar import BarKind
from acrn_dm.pci.eventfds import KickAddress
from acrn_dm.pci.function import PciFunction
from acrn_dm.ring.layout import MAX_QUEUE_SIZE, is_queue_size
from acrn_dm.virtio import choice, defs, features
from acrn_dm.virtio.core import VirtioCore
from acrn_dm.virtio.dataplane import DataPlane
from acrn_dm.virtio.defs import Status
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.native.counts import QueueCounts
from acrn_dm.virtio.optional import FeatureJudge, NegotiationWatcher, SlowToClose, TerminalUser, WindowWatcher
from acrn_dm.virtio.pci import caps as pci_caps
from acrn_dm.virtio.pci import legacy, modern
from acrn_dm.virtio.pci.device_config import DeviceConfig
from acrn_dm.virtio.pci.interrupts import Interrupts
from acrn_dm.virtio.pci.legacy import LegacyBar
from acrn_dm.virtio.pci.memory_follower import MemoryFollower
from acrn_dm.virtio.pci.modern import ModernBar
from acrn_dm.virtio.placement import USERSPACE, Placement
from acrn_dm.virtio.queue_config import QueueConfig
from acrn_dm.virtio.strict import strict_report, watched_bar
from acrn_dm.virtio.switches import offered_for, packed_offered

log = logging.getLogger(__name__)

LEGACY_BAR = 0
MSIX_BAR = 1
MODERN_BAR = 4
WINDOWS_KINDS = (defs.NET, defs.BLOCK, defs.INPUT)  # which the original re-labels with --windows
LEGACY_RESET_S = 1.0  # a legacy driver's reset holds its vCPU no longer
LOOK_S = 0.005
REPORT_INTERVAL_S = 1.0  # a driver can fail and reset as fast as it likes; the log can't keep up

D = TypeVar("D", bound=VirtioDevice)


class VirtioPci(PciFunction, Generic[D]):
    """The function of one device, a *D*. Also what a device knows as its ``Transport``, and what the core knows as its
    ``CoreHost``.
    """

    def __init__(self, device: D, context: DeviceContext, backends: Iterable[BackendType]) -> None:
        problem = layout_problem(device)
        if problem is not None:
            raise PluginError(problem, provenance=f"device {context.kind}")
        super().__init__(context, **identity(device, context))
        self.device = device
        self.failures = 0
        self.strict = strict_report(self.name) if context.strict else None
        self._next_report = 0.0
        self._ring_features = offered_for(device.in_order, context.switches, device.name)
        self._closed = False
        self._loops: DeviceLoops | None = None
        self._unlocked = threading.Condition(self.lock)  # to let go of the lock, however often it was taken
        backend_types = list(backends)
        placement = self.placement
        self.backend_type = choice.choose(context, backend_types, placement.backend)
        self._fallback = choice.choose(context, backend_types, USERSPACE) if placement.optional else None
        self.core = VirtioCore(device.device_id, device.queue_sizes, self)
        self.interrupts = Interrupts(self)
        self.data_plane = DataPlane(
            self.name,
            choice.make(self.backend_type, device),
            poll_ns=context.poll_ns,
            without_msix=self.interrupts.queue_without_msix,
            driver_broke=None if self.strict is None else self.strict.broken,
        )
        self._lay_out()
        device.transport = self

    def _lay_out(self) -> None:
        config = DeviceConfig(self.device.config_size, lambda: self.data_plane.backend, self.core)
        if self.device.transitional:
            old = LegacyBar(self.core, config, lambda: self.interrupts.msix_enabled)
            self.add_bar(LEGACY_BAR, legacy.bar_size(config.size), BarKind.IO, self._watched(old, legacy=True))
        if self.context.virtio_msi:
            self.add_msi()
        else:
            self.add_msix(MSIX_BAR, len(self.core.queues) + 1)
        new = self._watched(ModernBar(self.core, config), legacy=False)
        self.add_bar(MODERN_BAR, modern.BAR_SIZE, BarKind.MEM64, new)
        pci_caps.add_structures(self, MODERN_BAR, queues=len(self.core.queues), config_size=config.size)
        self._window = pci_caps.ConfigWindow(self)
        self.use_intx()

    def _watched(self, bar: Handler, *, legacy: bool) -> Handler:
        """*bar*, behind the rules where the driver is checked."""
        if self.strict is None:
            return bar
        return watched_bar(bar, self.core, self.strict, lambda: self.interrupts.msix_enabled, legacy=legacy)

    @property
    def placement(self) -> Placement:
        """Who moves the data: as the user says, else as the device does."""
        return choice.chosen(self.device.placement, self.context)

    # PciFunction: called with the lock held.

    @property
    def uses_terminal(self) -> bool:
        """As the device says."""
        return isinstance(self.device, TerminalUser) and self.device.uses_terminal

    def check(self) -> list[str]:
        """What the device and its backend miss on this host."""
        lines = self.device.check()
        if self._fallback is not None:
            return lines
        reason = self.backend_type.probe()
        missing = self.data_plane.backend.check() if reason is None else [reason]
        return lines + [f"{self.name}: backend {self.backend_type.name}: {line}" for line in missing]

    def realize(self, resources: Resources) -> None:
        """Open device and backend; only then is it known what they can offer."""
        resources = self._on_own_loops(resources)
        resources.memory.generations.join(MemoryFollower(self.lock, self.core, self.data_plane))
        self.device.realize(resources)
        offered = self.device.features
        problem = features.offer_problem(self.device.device_id, offered)
        if problem is not None:
            raise PluginError(problem, provenance=f"device {self.context.kind}")
        self.data_plane.backend = choice.realize(self.data_plane.backend, self._fallback, resources)
        backend = self.data_plane.backend
        packed = packed_offered(backend.packed_by_default, self.context.switches)
        self.core.offer(backend.offer(offered | self._ring_features | packed))

    def connect(self, resources: Resources) -> None:
        """As every function, with the loops that the device is served on."""
        super().connect(self._on_own_loops(resources))

    def _on_own_loops(self, resources: Resources) -> Resources:
        if self._loops is None:
            self._loops = device_loops(self.context, resources.io_loop)
        return attrs.evolve(resources, io_loop=self._loops.get)

    def reset(self) -> None:
        """Machine reset: the device's own reset first, then the function's."""
        self.core.reset()
        super().reset()

    def quiesce(self) -> bool:
        """Reset the device, in the end; False while something of it is in flight in the host."""
        with self.lock:
            if self._closed:
                return True
            if self.core.resetting:
                self.core.settle()
            elif self.data_plane.started:
                self.core.begin_reset()
            return not self.core.resetting

    @property
    def busy(self) -> bool:
        """As the backend says."""
        return self.data_plane.busy

    def prepare_close(self) -> None:
        """Pass it on to a device that has something to do."""
        with self.lock:
            if isinstance(self.device, SlowToClose):
                self.device.prepare_close()

    def close(self) -> None:
        """Stop whatever runs and close backend and device; what the host does not give back is left behind."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            self.core.reset()
            try:
                self.data_plane.backend.close()
            finally:
                self.device.close()

    def queue_counts(self, index: int) -> QueueCounts:
        """What was counted of queue *index* since the device was made. Any thread."""
        return self.data_plane.counts(index)

    def window_changed(self) -> None:
        """Pass it on to the device, if it has a terminal."""
        with self.lock:
            if isinstance(self.device, WindowWatcher):
                self.device.window_changed()

    def bar_mapped(self, index: int, base: int) -> None:
        """A BAR answers somewhere: kicks follow it."""
        if index in (LEGACY_BAR, MODERN_BAR):
            self.data_plane.bind_kicks(self._kick_address)

    def bar_unmapped(self, index: int) -> None:
        """A BAR is gone: its kicks are nowhere."""
        if index in (LEGACY_BAR, MODERN_BAR):
            self.data_plane.bind_kicks(self._kick_address)

    def interrupts_changed(self) -> None:
        """MSI-X, MSI or the pin were switched."""
        self.interrupts.mode_changed()

    def config_read(self, offset: int, size: int) -> int:
        """Configuration space; pci_cfg_data shows a BAR."""
        if self._window.covers(offset, size):
            self._window.load()
        return super().config_read(offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Configuration space; pci_cfg_data writes a BAR."""
        super().config_write(offset, size, value)
        if self._window.covers(offset, size):
            self._window.store()

    # CoreHost: called with the lock held.

    def refusal(self, accepted: int) -> str | None:
        """As the device says, if it has an opinion."""
        try:
            return self.device.refusal(accepted) if isinstance(self.device, FeatureJudge) else None
        except Exception as e:  # a plugin's fault; the driver's write has to return
            self.core.needs_reset(e)
            return "the device failed"

    def negotiated(self) -> None:
        """The device may show another configuration from now on."""
        try:
            if isinstance(self.device, NegotiationWatcher):
                self.device.negotiated(self.core.driver_features)
        except Exception as e:  # a plugin's fault; the driver's write has to return
            self.core.needs_reset(e)

    def start_queues(self) -> None:
        """Take kicks where the driver sends them, and let the backend run every enabled queue."""
        resources = self._resources
        if resources is None:
            raise RuntimeError(f"{self.name} is not part of a machine")
        enabled = [queue for queue in self.core.queues if queue.enabled]
        try:
            features = self.core.driver_features
            self.data_plane.start(resources, self.msix, features, enabled, self._kick_address)
        except Exception:
            self.data_plane.stop()
            raise

    def join_queues(self) -> None:
        """The enabled queues that do not run yet run with the others."""
        resources = self._resources
        assert resources is not None
        enabled = [queue for queue in self.core.queues if queue.enabled]
        try:
            self.data_plane.join(resources, self.msix, enabled, self._kick_address)
        except Exception:
            self.data_plane.stop()
            raise

    def reset_queue(self, queue: QueueConfig) -> None:
        """The others go on."""
        try:
            self.data_plane.reset_queue(queue.index)
        except Exception:
            self.data_plane.stop()
            raise

    def queue_busy(self, queue: QueueConfig) -> bool:
        """As the backend says."""
        return self.data_plane.queue_busy(queue.index)

    def enable_queue(self, queue: QueueConfig) -> None:
        """With eventfds of its own, as at DRIVER_OK."""
        resources = self._resources
        assert resources is not None
        try:
            self.data_plane.enable_queue(resources, self.msix, queue, self._kick_address)
        except Exception:
            self.data_plane.stop()
            raise

    def device_config(self) -> bytes:
        """The device's configuration space, as whoever moves its data knows it."""
        size = self.device.config_size
        return self.data_plane.backend.read_config(0, size) if size else b""

    def cancel_queues(self) -> None:
        """Stop without waiting."""
        self.data_plane.cancel()

    def queues_busy(self) -> bool:
        """As the backend says."""
        return self.data_plane.busy

    def await_queues(self) -> None:
        """Other vCPUs reach the registers meanwhile, and may even finish the reset."""
        epoch, until = self.core.epoch, time.monotonic() + LEGACY_RESET_S
        while self.core.resetting and self.core.epoch == epoch and time.monotonic() < until:
            self._unlocked.wait(LOOK_S)
            self.core.settle()
        if self.core.resetting and self.core.epoch == epoch:
            text = "%s: requests are stuck in the host; it stays in reset until they end"
            log.warning(text, self.name)

    def stop_queues(self) -> None:
        """Stop the backend and forget every binding."""
        self.data_plane.stop()
        try:
            self.device.reset()
        except Exception:  # a plugin's fault; the driver's write has to return
            log.exception("%s: the device did not reset cleanly", self.name)

    def signal_kick(self, queue: int) -> None:
        """A notify write that no ioeventfd took."""
        self.core.attempt(functools.partial(self.data_plane.signal_kick, queue))

    def vector_changed(self, queue: QueueConfig) -> None:
        """A running queue's calls follow its vector."""
        self.data_plane.set_vector(queue.index, queue.vector)

    def vector_count(self) -> int:
        """Vectors the driver may map to."""
        return self.msix.vectors if self.msix is not None else 0

    def config_interrupt(self) -> None:
        """Configuration change notification."""
        self.interrupts.config_changed(self.core.config_vector)

    def read_isr(self) -> int:
        """ISR status, cleared by reading."""
        return self.interrupts.read_isr()

    def clear_interrupts(self) -> None:
        """Nothing from before a reset reaches the driver after it."""
        self.interrupts.clear()

    def failed(self, error: Exception) -> None:
        """Say that the device wants a reset; at most once a second in the log, always to the observers."""
        self.failures += 1
        if self._resources is not None:
            self._resources.device_failed(self.device, error)
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_INTERVAL_S
            trace = None if isinstance(error, AcrnDmError) else error
            who = self.context.blamed
            log.warning("%s needs a reset (%d so far): %s", who, self.failures, error, exc_info=trace)

    # Transport: any thread.

    def config_changed(self) -> None:
        """The device's configuration changed: new generation now, interrupt from the main loop."""
        self.core.bump_generation()
        self._soon(self._notify_config)

    def fail(self, error: Exception) -> None:
        """The device can't go on with this driver."""
        self._soon(lambda: self.core.needs_reset(error))

    def queues_changed(self, done: Callable[[], None]) -> None:
        """The driver uses other queues than before."""
        self.data_plane.backend.queues_changed(done)

    def _notify_config(self) -> None:
        # 4.1.4.5.1, 3.1.1: a driver that is not ready yet reads the configuration anyway.
        if self.core.status & Status.DRIVER_OK:
            self.config_interrupt()

    def _soon(self, work: Callable[[], None]) -> None:
        """Do *work* on the main loop under the lock, unless the driver has reset the device by then."""
        resources, epoch = self._resources, self.core.epoch
        if resources is None:
            return

        def locked() -> None:
            with self.lock:
                if epoch == self.core.epoch:
                    work()

        resources.main_loop.call_soon(locked)

    def _kick_address(self, index: int) -> KickAddress | None:
        """Where the driver in charge notifies queue *index*: a legacy one by its value, a modern one by its place.

        With NOTIFICATION_DATA it writes four bytes, whatever their value. A binding without a value to match takes them
        on KVM and on ACRN, which both compare the length; a kick of two bytes is served by the register then.
        """
        bar = self.bars[LEGACY_BAR if self.core.legacy and LEGACY_BAR in self.bars else MODERN_BAR]
        if not bar.mapped or self.strict is not None:  # kicks are looked at, too
            return None
        if bar.is_io:
            at = bar.base + legacy.NOTIFY_OFFSET
            return KickAddress(space=Space.PIO, addr=at, len=legacy.NOTIFY_LENGTH, datamatch=index)
        at = bar.base + modern.NOTIFY_OFFSET + modern.NOTIFY_MULTIPLIER * index
        length = 4 if self.core.driver_features & features.NOTIFICATION_DATA else 2
        return KickAddress(space=Space.MMIO, addr=at, len=length)


def layout_problem(device: VirtioDevice) -> str | None:
    """What makes *device* impossible as a PCI function; None when it can be one."""
    sizes = device.queue_sizes
    if not 1 <= len(sizes) <= modern.MAX_QUEUES:
        return f"{len(sizes)} queues; must be 1 to {modern.MAX_QUEUES}"
    bad = [size for size in sizes if not is_queue_size(size)]
    if bad:
        return f"queue size {bad[0]}; must be a power of two up to {MAX_QUEUE_SIZE}"
    if device.transitional and device.device_id not in defs.TRANSITIONAL_PCI_ID:
        return f"virtio device id {device.device_id} has no transitional form"
    if not 0 <= device.config_size <= modern.REGION_SIZE:
        return f"configuration space of {device.config_size} bytes; at most {modern.REGION_SIZE}"
    return None


def identity(device: VirtioDevice, context: DeviceContext) -> "dict[str, int]":
    """PCI ids of *device* (4.1.2): transitional ones are told by the subsystem id, modern ones by the device id."""
    relabelled = context.windows and device.device_id in WINDOWS_KINDS
    ids = {
        "vendor": defs.VENDOR_ID,
        "class_code": device.pci_class,
        "subsystem_vendor": defs.WINDOWS_SUBSYSTEM_VENDOR if relabelled else defs.VENDOR_ID,
    }
    if device.transitional:
        pci_id, subsystem, revision = defs.TRANSITIONAL_PCI_ID[device.device_id], device.device_id, 0
    else:
        pci_id = subsystem = defs.MODERN_DEVICE_BASE + device.device_id
        revision = 1
    return ids | {"device": pci_id, "subsystem_device": subsystem, "revision": revision}
