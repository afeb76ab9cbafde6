"""A machine without vCPUs and without threads: devices on a real PCI bus, driven by a test that plays the guest.

::

    with SimMachine() as machine:
        machine.add(MyDevice, slot=3)
        driver = machine.driver(3)
        driver.start()
        token = driver.queue(0).send(out=[b"hello"], in_=[64])
        driver.queue(0).kick()
        machine.settle()
        assert driver.queue(0).completed() == [(token, 5, b"olleh" + bytes(59))]

Everything between the register write and the device is what runs in production: buses, PCI, MSI-X, eventfd hooks,
loops. Only the loops do not run by themselves; ``settle`` steps them until nothing is left to do.
"""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

from acrn_dm.base.events.clock import REAL, Clock
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.plugins import BUILTINS, make_plugin_manager
from acrn_dm.contract.plugins.selection import Selection
from acrn_dm.contract.registers import BootRegisters, Segment
from acrn_dm.contract.types import Bdf, DeviceContext, DeviceType
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.machine.build import assemble
from acrn_dm.machine.devices import make_function
from acrn_dm.machine.hypervisor import ChosenHypervisor
from acrn_dm.machine.resolve import ResolvedDevice, resolve_one, wanted
from acrn_dm.memory.guest_memory import MIB, GuestMemory, MemoryRange
from acrn_dm.pci.bus import PciBus
from acrn_dm.pci.function import PciFunction
from acrn_dm.testing.clock import VirtualClock, settle
from acrn_dm.testing.driver import VirtioDriver
from acrn_dm.testing.faults import Faults
from acrn_dm.testing.guest_pci import GuestFunction
from acrn_dm.testing.heap import GuestHeap
from acrn_dm.testing.recorder import Recorder
from acrn_dm.testing.register_access import LegacyRegisters, ModernRegisters
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.native.counts import QueueCounts
from acrn_dm.virtio.pci.transport import VirtioPci
from acrn_dm.virtio.strict.report import Violation

log = logging.getLogger(__name__)

MINIMAL = {name: BUILTINS[name] for name in ("hypervisors.sim", "virtio.vbs_u")}
HEAP_BASE = MIB  # below it nothing is handed out: address 0 stays a hostile test's own

DEVICES = {name: module for name, module in BUILTINS.items() if not name.startswith("hypervisors.")}
MADE = "device"  # the kind of what makes itself

Factory = Callable[[DeviceContext], Any]
Options = str | Mapping[str, object]
T = TypeVar("T")
V = TypeVar("V", bound=VirtioDevice)
F = TypeVar("F", bound=PciFunction)


class _Witness:
    """An observer that keeps what the machine tells."""

    __name__ = "acrn_dm.testing"

    def __init__(self) -> None:
        self.failures: list[tuple[object, Exception]] = []

    @hookimpl
    def acrn_dm_device_failed(self, device: object, error: Exception) -> None:
        self.failures.append((device, error))


class SimMachine:
    """The machine and its PCI bus. *plugins* are registered beside the built-in backend and hypervisor, e.g. to trace
    eventfd hooks; *plugin_options* are values of the options that plugins add.

    *memory* is RAM from address 0, in bytes, or the ranges themselves. The first driver, or ``start``, makes it real;
    devices are added before. Leaving the ``with`` block closes everything, and fails if a device let an exception
    escape into a vCPU or still holds guest memory.

    *clock* is the time of loops, timers and chips: with a ``VirtualClock`` it passes in ``advance`` only.

    With *strict* the driver of every virtio device is held to the driver requirements of the specification: what it
    breaks is in ``take_violations``, and fails at the end if nobody took it. ``strict=on`` does so for one device.

    Without *native* every queue is served in Python, also those that their device has a plane in C for.
    """

    def __init__(
        self,
        *,
        memory: int | Sequence[MemoryRange] = 16 * MIB,
        plugins: Sequence[object] = (),
        windows: bool = False,
        virtio_msi: bool = False,
        poll_ns: int | None = None,
        vcpus: int = 1,
        plugin_options: Mapping[str, object] | None = None,
        clock: Clock = REAL,
        strict: bool = False,
        native: bool = True,
    ) -> None:
        self._witness = _Witness()
        config = MachineConfig(name="sim", vcpus=vcpus, hypervisor="sim", plugin_options=plugin_options or {})
        self.plugins = make_plugin_manager(builtins=MINIMAL, entry_points=False, extra=[self._witness, *plugins])
        self.plugins.choice = Selection()  # a device's process (process=on) finds *plugins* as installed ones
        self.clock = clock
        self.bus = PciBus()
        self._open(config, (MemoryRange(gpa=0, size=memory),) if isinstance(memory, int) else tuple(memory))
        self.started = False
        self._native = native
        self._violations: list[Violation] = []
        self._context = functools.partial(
            DeviceContext,
            windows=windows,
            virtio_msi=virtio_msi,
            poll_ns=poll_ns,
            vcpus=vcpus,
            strict=strict,
            plugin_options=config.plugin_options,
        )

    def _open(self, config: MachineConfig, ranges: tuple[MemoryRange, ...]) -> None:
        """Make the machine's parts, and the virtual machine with its memory."""
        hypervisor = ChosenHypervisor(type=self.plugins.hypervisor_types()["sim"])
        self.machine = assemble(
            config, self.plugins, self.bus, hypervisor, threads=False, clock=self.clock, ranges=ranges
        )
        self.machine.open()
        self.vm = cast(SimVm, self.machine.vm)
        self.memory = cast(GuestMemory, self.machine.memory)
        self.dispatch, self.main_loop = self.machine.dispatch, self.machine.main_loop
        self.io_loops, self.io_loop = self.machine.io_loops.by_name, self.machine.io_loops.get
        first = self.memory.regions[0]
        self.heap = GuestHeap(first.gpa + HEAP_BASE, first.gpa + first.size)
        self.interrupts: Counter[int] = Counter()  # MSIs that arrived, by message data

    # Building

    @overload
    def add(
        self, what: Callable[[DeviceContext], V], text: Options = "", *, slot: int, func: int = 0
    ) -> VirtioPci[V]: ...

    @overload
    def add(self, what: Callable[[DeviceContext], F], text: Options = "", *, slot: int, func: int = 0) -> F: ...

    @overload
    def add(self, what: DeviceType | str, text: Options = "", *, slot: int, func: int = 0) -> PciFunction: ...

    def add(self, what: DeviceType | Factory | str, text: Options = "", *, slot: int, func: int = 0) -> PciFunction:
        """Put a device into *slot*: a ``DeviceType``, its name, or anything that makes a device from a
        ``DeviceContext``. A name is one of *plugins*, or else a built-in kind (``virtio-blk``).

        *text* are its options as on the command line, or a mapping of them as in TOML. Returns the PCI function; a
        virtio device is its ``.device``. Raises ConfigError for what the command line would refuse.
        """
        if self.started:
            raise RuntimeError("devices are added before the machine starts")
        bdf = Bdf(slot=slot, func=func)
        name = what if isinstance(what, str) else what.name if isinstance(what, DeviceType) else MADE
        options = {"text": text} if isinstance(text, str) else {"table": text}
        spec = DeviceSpec(bdf=bdf, kind=name, origin=name, **options)
        kind = self._kind(spec) if isinstance(what, str) else what
        context = self._context(bdf=bdf, kind=name, text=spec.text)
        if isinstance(kind, DeviceType):
            if kind.drivers is not None and "driver" in text:
                self.plugins.register_builtins(DEVICES)
            resolved = resolve_one(spec, kind, context, self.plugins)
        else:  # what makes itself reads its text itself
            resolved = ResolvedDevice(spec=spec, type=_type_of(kind), options=None, context=context)
        function = make_function(resolved, self.plugins)
        self.bus.add(function)
        if isinstance(function, VirtioPci):
            function.data_plane.native = self._native
        if isinstance(function, VirtioPci) and function.strict is not None:
            function.strict.listener = self._violations.append
        return function

    def _kind(self, spec: DeviceSpec) -> DeviceType:
        offered = self.plugins.devices
        if spec.kind not in offered.claims and spec.kind not in offered.refused:
            self.plugins.register_builtins(DEVICES)
        return wanted(spec, self.plugins)

    def device(self, slot: int, kind: type[T], func: int = 0) -> T:
        """The device in *slot*, which is a *kind*: of a virtio device what stands behind the transport. Raises
        LookupError where there is none, TypeError where it is another.
        """
        function = self.bus.find(Bdf(slot=slot, func=func))
        if function is None:
            raise LookupError(f"there is no device in slot {slot}")
        found = function.device if isinstance(function, VirtioPci) else function
        if not isinstance(found, kind):
            raise TypeError(f"the device in slot {slot} is a {type(found).__name__}, no {kind.__name__}")
        return found

    def start(self) -> None:
        """Assign addresses, realize every device, let accesses through. Idempotent."""
        if self.started:
            return
        self.started = True
        self.bus.assign()
        self.bus.route(self.vm.ioapic_pins)
        self.machine.connect()
        self._run()

    # Driving

    def function(self, slot: int, func: int = 0) -> GuestFunction:
        """The guest's view of the PCI function in *slot*."""
        self.start()
        return GuestFunction(self.vm, slot, func)

    def driver(self, slot: int, func: int = 0, *, msix: bool = True) -> VirtioDriver:
        """A modern driver of the virtio device in *slot*; it found registers and vectors over PCI, as a guest does."""
        function = self.function(slot, func)
        return VirtioDriver(self, function, ModernRegisters(function), msix=msix)

    def driver_legacy(self, slot: int, func: int = 0, *, msix: bool = True) -> VirtioDriver:
        """A driver of before virtio 1.0, through BAR 0."""
        function = self.function(slot, func)
        return VirtioDriver(self, function, LegacyRegisters(function), msix=msix)

    def settle(self) -> None:
        """Step all loops until none has anything to do; then take the interrupts that arrived."""
        while settle([self.main_loop, *self.io_loops.values()], self.clock):
            pass
        self.take_interrupts()

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on the machine's ``VirtualClock``, with every timer that becomes due in its turn; then
        settle. Raises TypeError with the host's clock.
        """
        if not isinstance(self.clock, VirtualClock):
            raise TypeError("the machine has the host's clock: SimMachine(clock=VirtualClock())")
        self.clock.advance(seconds)
        self.settle()

    @property
    def failures(self) -> list[tuple[object, Exception]]:
        """Devices that asked for a reset, and why; steps the main loop, which is what tells observers."""
        self.main_loop.run_until_idle()
        return self._witness.failures

    def serve_in_python(self) -> None:
        """Serve all queues in Python from now on, whose calls of the host a test can watch, delay and break."""
        self._native = False
        for function in self.bus.functions:
            if isinstance(function, VirtioPci) and function.data_plane.native:
                function.data_plane.native = False
                with function.lock:
                    function.data_plane.pause()
                    function.data_plane.resume()

    def queue_counts(self, slot: int, index: int, func: int = 0) -> QueueCounts:
        """What was counted of queue *index* of the virtio device in *slot*. Raises LookupError where there is none."""
        function = self.bus.find(Bdf(slot=slot, func=func))
        if not isinstance(function, VirtioPci):
            raise LookupError(f"there is no virtio device in slot {slot}")
        return function.queue_counts(index)

    def command_driver(self, slot: int, text: str, func: int = 0) -> None:
        """Tell the driver of the device in *slot* (``driver=NAME``) something, as the command monitor's ``driver``
        does. Raises ConfigError for what it does not understand.
        """
        self.machine.devices.command_driver(Bdf(slot=slot, func=func), text)

    def record(self, level: int = logging.INFO) -> Recorder:
        """A recorder of this machine, for a ``with`` block; it takes log records from *level* on."""
        return Recorder(self, level)

    @functools.cached_property
    def faults(self) -> Faults:
        """Calls of the host that fail, are late or short, and interrupts that get lost, as a test arms them."""
        return Faults(self)

    def take_violations(self) -> list[Violation]:
        """What drivers broke since the last call, of devices that check them."""
        taken = list(self._violations)
        self._violations.clear()
        return taken

    def take_interrupts(self) -> None:
        """Count the MSIs that arrived since the last call into ``interrupts``."""
        for message in self.vm.take_msis():
            self.interrupts[message.data] += 1

    def reset(self) -> None:
        """Reboot: devices, machine and RAM as after power-on."""
        self.machine.reset()
        self._run()

    def close(self) -> None:
        """Close everything. Raises AssertionError if an exception of a device escaped into a guest's access."""
        try:
            self.machine.close()
        finally:
            self.faults.clear()
        if self.dispatch.errors:
            raise AssertionError(f"{self.dispatch.errors} accesses of the guest raised in a device; see the log")
        if self._violations:
            raise AssertionError("drivers broke the specification:\n" + "\n".join(map(str, self._violations)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.close()
        except Exception:
            if error is None:
                raise
            log.exception("closing, after another error")

    def _run(self) -> None:
        flat = Segment(selector=8, access=0xC09B)
        self.machine.power.started()
        self.vm.set_boot_registers(BootRegisters(rip=0, code=flat, data=flat))
        self.vm.run(self.dispatch)


def _type_of(factory: Factory) -> DeviceType:
    return DeviceType(name=MADE, summary="", config=object, create=lambda options, context: factory(context))
