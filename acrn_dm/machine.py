"""The main path: collect types -> build -> realize -> run -> stop. Every step is a function whose name is the step.

``build`` makes every device and gives it its place, and opens nothing (``--dry-run`` stops there).
``Machine.realize`` opens memory, hypervisor and devices; ``Machine.run`` boots the guest, again after each reboot,
until it is off; ``Machine.close`` gives everything back in reverse order, whatever happened before.
"""

import enum
import functools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import attrs

from acrn_dm.boot import loader
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.bus import Bus, mmio_bus, pio_bus
from acrn_dm.config import MachineConfig
from acrn_dm.describe import describe
from acrn_dm.devices.platform import Platform, PlatformCallbacks
from acrn_dm.dispatch import MachineDispatch
from acrn_dm.errors import AcrnDmError, ConfigError
from acrn_dm.hypervisors.base import Hypervisor, VmEvent
from acrn_dm.ioloop import IoLoop
from acrn_dm.irq import IoEventFd, IrqFd
from acrn_dm.memory import GuestMemory, MemoryRange, guest_ranges
from acrn_dm.pci.bus import PciBus
from acrn_dm.pci.function import PciFunction
from acrn_dm.plugins import PluginManager, blame
from acrn_dm.report import MachineReport
from acrn_dm.resolve import ResolvedDevice, resolve_devices
from acrn_dm.resources import Resources
from acrn_dm.types import Bdf, HypervisorOptions, HypervisorType
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.transport_pci import VirtioPci

log = logging.getLogger(__name__)

EARLY_S = 1.0  # a triple fault sooner than this after the boot is no reboot, it is a kernel that can't run


class StopReason(enum.Enum):
    """Why the vCPUs stopped."""

    POWEROFF = "poweroff"
    RESET = "reset"
    DEBUG_EXIT = "debug-exit"
    FORCED = "forced off"
    ERROR = "error"


@attrs.define(eq=False)
class EventFdHooks:
    """The machine's face of the two eventfd hooks (``irq.EventFdRegistry``)."""

    plugins: PluginManager
    vm: Hypervisor

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register or unregister a kick. Raises HostError."""
        self.plugins.ioeventfd(self.vm, binding, assign)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register or unregister a call. Raises HostError."""
        self.plugins.irqfd(self.vm, binding, assign)


def probe(hypervisor: HypervisorType, plugins: PluginManager) -> str | None:
    """Why *hypervisor* can't be used here. Raises PluginError."""
    with blame(f"{plugins.provider(hypervisor)}: {hypervisor.name}"):
        return hypervisor.probe()


def choose_hypervisor(config: MachineConfig, plugins: PluginManager) -> HypervisorType:
    """Return the hypervisor asked for, or for ``auto`` the usable one of highest rank. Raises ConfigError with the
    reasons.
    """
    types = plugins.hypervisor_types()
    if config.hypervisor != "auto":
        if config.hypervisor not in types:
            known = ", ".join(["auto", *sorted(types)])
            raise ConfigError(f"no such hypervisor; known: {known}", option="--hypervisor", value=config.hypervisor)
        return types[config.hypervisor]
    candidates = sorted((t for t in types.values() if t.rank >= 0), key=lambda t: -t.rank)
    reasons = {t.name: probe(t, plugins) for t in candidates}
    usable = [t for t in candidates if reasons[t.name] is None]
    if not usable:
        text = "; ".join(f"{name}: {why}" for name, why in reasons.items()) or "none is installed"
        raise ConfigError(f"no hypervisor can be used here: {text}", option="--hypervisor", value="auto")
    return usable[0]


def make_function(resolved: ResolvedDevice, plugins: PluginManager) -> PciFunction:
    """Make one device and, for a virtio device, the PCI transport in front of it. Raises ConfigError, PluginError."""
    with blame(f"{plugins.provider(resolved.type)}: {resolved.spec.kind}"):
        device = resolved.type.create(resolved.options, resolved.context)
        if isinstance(device, VirtioDevice):
            return VirtioPci(device, resolved.context, plugins.backend_types())
    if isinstance(device, PciFunction):
        return device
    raise ConfigError(
        f"{plugins.provider(resolved.type)} made a {type(device).__name__}, which is no device", option="-s"
    )


def build(config: MachineConfig, plugins: PluginManager, *, threads: bool = True) -> "Machine":
    """Make all devices, give them addresses and interrupt lines, open nothing. Raises ConfigError, PluginError.

    Without *threads* nothing runs by itself: tests step the loops.
    """
    bus = PciBus()
    providers: dict[Bdf, str] = {}
    for resolved in resolve_devices(config, plugins):
        bus.add(make_function(resolved, plugins))
        providers[resolved.spec.bdf] = str(plugins.provider(resolved.type))
    bus.assign()
    try:
        hypervisor: HypervisorType | None = choose_hypervisor(config, plugins)
        reason = probe(hypervisor, plugins) if hypervisor is not None and not config.allow_slow else None
        problem = None if reason is None else f"--hypervisor: {config.hypervisor!r}: {reason}"
    except ConfigError as e:
        if config.hypervisor != "auto":
            raise
        hypervisor, problem = None, str(e)
    bus.route(hypervisor.ioapic_pins if hypervisor is not None else 24)
    machine = Machine(
        config=config,
        plugins=plugins,
        bus=bus,
        providers=providers,
        hypervisor=hypervisor,
        problem=problem,
        threads=threads,
    )
    plugins.observe("acrn_dm_machine_built", machine=machine)
    return machine


@attrs.define(eq=False)
class Machine:
    """One virtual machine. Not thread-safe: owned by the main thread; ``request_*`` may be called from any thread."""

    config: MachineConfig
    plugins: PluginManager = attrs.field(repr=False)
    bus: PciBus = attrs.field(repr=False)
    providers: dict[Bdf, str] = attrs.field(repr=False)  # which plugin offers the device at a place
    hypervisor: HypervisorType | None
    problem: str | None = None  # why the hypervisor can't be opened here
    threads: bool = True
    ranges: tuple[MemoryRange, ...] = attrs.field(repr=False)
    pio: Bus = attrs.field(factory=pio_bus, init=False, repr=False)
    mmio: Bus = attrs.field(factory=mmio_bus, init=False, repr=False)
    main_loop: IoLoop = attrs.field(factory=lambda: IoLoop("main"), init=False, repr=False)
    io_loops: dict[str, IoLoop] = attrs.field(factory=dict, init=False, repr=False)
    memory: GuestMemory | None = attrs.field(default=None, init=False)
    vm: Hypervisor | None = attrs.field(default=None, init=False)
    platform: Platform = attrs.field(init=False, repr=False)
    dispatch: MachineDispatch = attrs.field(init=False, repr=False)
    reason: StopReason | None = attrs.field(default=None, init=False)
    detail: str = attrs.field(default="", init=False)
    reboots: int = attrs.field(default=0, init=False)
    _booted_at: float = attrs.field(default=0.0, init=False)
    _pressed: bool = attrs.field(default=False, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @ranges.default
    def _default_ranges(self) -> tuple[MemoryRange, ...]:
        return guest_ranges(self.config.memory_bytes)

    def __attrs_post_init__(self) -> None:
        callbacks = PlatformCallbacks(
            poweroff=lambda: self.request_stop(StopReason.POWEROFF),
            reset=lambda full: self.request_stop(StopReason.RESET),
            suspend=lambda: log.warning("the guest asked for S3; suspend is not provided, it goes on"),
            debug_exit=lambda code: self.request_stop(StopReason.DEBUG_EXIT, f"code {code:#x}"),
            quit=self.press_power_button,
        )
        self.platform = Platform(callbacks, uarts=self.config.uarts, debugexit=self.config.debugexit)
        self.dispatch = MachineDispatch(self.pio, self.mmio, self._vm_event)

    @property
    def functions(self) -> tuple[PciFunction, ...]:
        """All PCI functions by bus, slot and function."""
        return self.bus.functions

    def check(self) -> list[str]:
        """What is missing on this host, one line each; opens and changes nothing."""
        lines = [] if self.problem is None else [self.problem]
        checks: list[Callable[[], list[str]]] = [lambda: loader.check(self.boot_plan()), self.platform.check]
        checks += [functools.partial(self._check, f) for f in self.functions] + [self._check_terminal]
        for check in checks:
            try:
                lines += check()
            except ConfigError as e:
                lines.append(str(e))
        return lines

    def describe(self) -> MachineReport:
        """The machine as a record for ``--dry-run``."""
        name = self.hypervisor.name if self.hypervisor is not None else "none"
        return describe(self.config, self.bus, self.platform, name, self.providers)

    def boot_plan(self) -> loader.BootPlan:
        """What the loader is to put into memory."""
        config = self.config
        acpi = AcpiInputs(
            apic_ids=tuple(range(config.vcpus)),
            prt=self.bus.prt(),
            uarts=self.platform.acpi_uarts(),
            last_bus=self.bus.last_bus,
            i8042=True,
            pm_timer_port=self.platform.pm_timer_port,
        )
        return loader.BootPlan(
            kernel=config.kernel,
            elf=config.elf,
            ramdisk=config.ramdisk,
            bootargs=config.bootargs,
            memory_ranges=self.ranges,
            acpi=acpi,
        )

    def realize(self) -> None:
        """Open hypervisor, memory and devices. On an error everything opened so far is closed by ``close``."""
        self.open()
        self.connect()

    def open(self) -> None:
        """Open the hypervisor and give it the guest's memory. Raises ConfigError or HostError."""
        if self.problem is not None or self.hypervisor is None:
            raise ConfigError(self.problem or "no hypervisor")
        options = HypervisorOptions(name=self.config.name, vcpus=self.config.vcpus, allow_slow=self.config.allow_slow)
        with blame(f"{self.plugins.provider(self.hypervisor)}: {self.hypervisor.name}"):
            self.vm = self.hypervisor.open(options)
        self.memory = GuestMemory.allocate(self.ranges)
        for region in self.memory.regions:
            self.vm.map_memory(region)

    def connect(self) -> None:
        """Put the platform and the PCI bus on the buses, and let every device open what it needs."""
        assert self.vm is not None
        assert self.memory is not None
        resources = Resources(
            memory=self.memory,
            pio=self.pio,
            mmio=self.mmio,
            interrupts=self.vm,
            eventfds=EventFdHooks(self.plugins, self.vm),
            main_loop=self.main_loop,
            io_loop=self.io_loop,
            device_failed=self._device_failed,
        )
        self.platform.realize(resources)
        self.bus.attach(resources)
        for function in self.functions:
            with function.lock, self._blame(function):
                function.realize(resources)

    def io_loop(self, name: str) -> IoLoop:
        """The I/O loop of that name, made (and its thread started) on first use."""
        with self._lock:
            if name not in self.io_loops:
                loop = IoLoop(name)
                self.io_loops[name] = loop
                if self.threads:
                    loop.start()
            return self.io_loops[name]

    def run(self) -> StopReason:
        """Boot, and boot again after each reset, until the guest is off. Returns why; ``detail`` says more."""
        self.boot()
        while self._wait() is StopReason.RESET:
            self.reset()
            if self.reason is None:
                self.boot()
        return self._stop()

    def boot(self) -> None:
        """Put kernel and tables into memory and let the vCPUs go."""
        assert self.vm is not None
        assert self.memory is not None
        self.vm.set_boot_registers(loader.load(self.memory, self.boot_plan()))
        self.plugins.observe("acrn_dm_machine_started", machine=self)
        self._booted_at = time.monotonic()
        self.vm.run(self.dispatch)

    def reset(self) -> None:
        """Reboot: vCPUs stopped, everything as after power-on, in the same process."""
        assert self.vm is not None
        assert self.memory is not None
        self.vm.pause()
        with self._lock:  # what was asked for before the vCPUs stood still is done; a reason to stop for good stays
            log.info("the guest resets: %s", self.detail or "by its own request")
            if self.reason is StopReason.RESET:
                self.reason, self.detail = None, ""
        self.plugins.observe("acrn_dm_machine_stopped", machine=self, reason=StopReason.RESET.value)
        self._reset_devices()
        self.vm.reset()
        self.memory.clear()
        self.reboots += 1

    def press_power_button(self) -> None:
        """Ask the guest to power off; the second time, or after the time-out, it is forced. Main thread or its
        signals.
        """
        self.main_loop.call_soon(self._press)

    def window_changed(self) -> None:
        """The terminal has another size: tell the consoles on it. Main thread or its signals."""
        self.main_loop.call_soon(self._window_changed)

    def request_stop(self, reason: StopReason, detail: str = "") -> None:
        """Stop the vCPUs soon; the first reason counts, but any other one outdoes a reset. Any thread."""
        with self._lock:
            if self.reason in (None, StopReason.RESET):
                self.reason, self.detail = reason, detail
        self.main_loop.call_soon(lambda: None)

    def close(self) -> None:
        """Give everything back, in reverse order; goes on after errors and raises the first one at the end.
        Idempotent.
        """
        steps: list[Callable[[], object]] = [] if self.vm is None else [self.vm.stop]
        steps += [f.close for f in reversed(self.functions)]
        steps += [self.platform.close, *(loop.close for loop in self.io_loops.values()), self.main_loop.close]
        steps += [part.close for part in (self.vm, self.memory) if part is not None]
        errors: list[Exception] = []
        for step in steps:
            try:
                step()
            except Exception as e:
                errors.append(e)
        self.io_loops, self.vm, self.memory = {}, None, None
        for error in errors:
            log.error("closing: %s", error, exc_info=None if isinstance(error, AcrnDmError) else error)
        if errors:
            raise errors[0]

    def _check(self, function: PciFunction) -> list[str]:
        with self._blame(function):
            return function.check()

    def _check_terminal(self) -> list[str]:
        users = [f"-l {port.name.lower()}" for port in self.platform.uarts if port.uses_terminal]
        users += [f.name for f in self.functions if f.uses_terminal]
        text = "standard input and output can be used by one device only, not by"
        return [f"{text} {', '.join(users)}"] if len(users) > 1 else []

    def _blame(self, function: PciFunction) -> AbstractContextManager[None]:
        where = self.providers.get(function.context.bdf, "added by the caller")
        return blame(f"{where}: {function.context.kind}")

    def _window_changed(self) -> None:
        for function in self.functions:
            with function.lock:
                function.window_changed()

    def _wait(self) -> StopReason:
        while self.reason is None:
            self.main_loop.step(None)
        return self.reason

    def _stop(self) -> StopReason:
        """Off: vCPUs first, then every device finishes what is in flight."""
        assert self.vm is not None
        assert self.reason is not None
        self.vm.stop()
        self._reset_devices()
        text = self.detail if self.reason is StopReason.ERROR else self.reason.value
        self.plugins.observe("acrn_dm_machine_stopped", machine=self, reason=text)
        return self.reason

    def _reset_devices(self) -> None:
        for function in self.functions:
            with function.lock:
                function.reset()
        self.platform.reset()
        self.bus.reset()

    def _press(self) -> None:
        if self._pressed:
            self.request_stop(StopReason.FORCED, "asked a second time")
            return
        self._pressed = True
        log.info("power button pressed; the guest has %g s", self.config.shutdown_timeout_s)
        self.platform.press_power_button()
        self.main_loop.call_later(
            self.config.shutdown_timeout_s,
            lambda: self.request_stop(StopReason.FORCED, "the guest did not power off in time"),
        )

    def _vm_event(self, event: VmEvent, detail: str) -> None:
        if event is VmEvent.TRIPLE_FAULT and time.monotonic() - self._booted_at >= EARLY_S:
            self.request_stop(StopReason.RESET, "triple fault")
        else:
            self.request_stop(StopReason.ERROR, f"{event.value}: {detail}" if detail else event.value)

    def _device_failed(self, device: object, error: Exception) -> None:
        # Observers are promised the main thread; devices report from wherever they were.
        self.main_loop.call_soon(lambda: self.plugins.observe("acrn_dm_device_failed", device=device, error=error))
