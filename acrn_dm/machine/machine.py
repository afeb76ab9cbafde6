"""The main path: collect types -> build -> realize -> run -> stop. Every step is a function whose name is the step.

``build`` makes every device and gives it its place, and opens nothing (``--dry-run`` stops there).
``Machine.realize`` opens memory, hypervisor and devices; ``Machine.run`` boots the guest, again after each reboot,
until it is off; ``Machine.close`` gives everything back in reverse order, whatever happened before.
"""

import functools
import logging
import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import attrs

from acrn_dm.base.bus import Bus, mmio_bus, pio_bus
from acrn_dm.base.errors import ConfigError, GuestError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.boot import loader
from acrn_dm.boot.files import KeptFiles
from acrn_dm.boot.wake import wake_registers
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.hypervisor import Hypervisor, VmEvent
from acrn_dm.contract.interrupt_monitor import InterruptWatcher
from acrn_dm.contract.plugins import PluginManager, blame
from acrn_dm.contract.processors import ProcessorPower
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.contract.resources import HostFault, Resources
from acrn_dm.contract.types import Bdf, HypervisorType
from acrn_dm.devices.platform import Platform, PlatformCallbacks
from acrn_dm.machine import parts
from acrn_dm.machine.describe import describe, log_unchosen_backends
from acrn_dm.machine.dispatch import MachineDispatch
from acrn_dm.machine.firmware import FirmwareSupport, with_chips
from acrn_dm.machine.plan import allocate_memory, boot_plan, hypervisor_options
from acrn_dm.machine.report import MachineReport
from acrn_dm.machine.resolve import resolve_devices
from acrn_dm.machine.triple_fault import TripleFaults
from acrn_dm.management import Controls, Management, Standstill, StopReason, power_state
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange, guest_ranges
from acrn_dm.pci.bus import PciBus
from acrn_dm.pci.function import PciFunction
from acrn_dm.pci.quiesce import left_behind, quiesce

__all__ = ("Machine", "StopReason", "build")

log = logging.getLogger(__name__)

STOP_S = 5.0  # a host that does not finish what is in flight keeps a machine that goes off no longer


def build(config: MachineConfig, plugins: PluginManager, *, threads: bool = True) -> "Machine":
    """Make all devices, give them addresses and interrupt lines, open nothing. Raises ConfigError, PluginError.

    Without *threads* nothing runs by itself: tests step the loops.
    """
    files = KeptFiles()
    config = with_chips(config, files)
    bus = PciBus()
    providers: dict[Bdf, str] = {}
    for resolved in resolve_devices(config, plugins):
        bus.add(parts.make_function(resolved, plugins))
        providers[resolved.spec.bdf] = str(plugins.provider(resolved.type))
    bus.assign()
    hypervisor, problem = parts.find_hypervisor(config, plugins)
    bus.route(hypervisor.ioapic_pins if hypervisor is not None else 24)
    machine = Machine(
        config=config,
        plugins=plugins,
        bus=bus,
        providers=providers,
        hypervisor=hypervisor,
        problem=problem,
        threads=threads,
        files=files,
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
    files: KeptFiles = attrs.field(factory=KeptFiles, repr=False)  # kernel, ramdisk and firmware
    ranges: tuple[MemoryRange, ...] = attrs.field(repr=False)
    pio: Bus = attrs.field(factory=pio_bus, init=False, repr=False)
    mmio: Bus = attrs.field(factory=mmio_bus, init=False, repr=False)
    main_loop: IoLoop = attrs.field(factory=lambda: IoLoop("main"), init=False, repr=False)
    io_loops: dict[str, IoLoop] = attrs.field(factory=dict, init=False, repr=False)
    memory: GuestMemory | None = attrs.field(default=None, init=False)
    vm: Hypervisor | None = attrs.field(default=None, init=False)
    firmware: FirmwareSupport = attrs.field(init=False, repr=False)
    platform: Platform = attrs.field(init=False, repr=False)
    dispatch: MachineDispatch = attrs.field(init=False, repr=False)
    management: Management | None = attrs.field(default=None, init=False, repr=False)
    standstill: Standstill = attrs.field(init=False, repr=False)
    reason: StopReason | None = attrs.field(default=None, init=False)
    detail: str = attrs.field(default="", init=False)
    reboots: int = attrs.field(default=0, init=False)
    _power: tuple[ProcessorPower, ...] = attrs.field(default=(), init=False, repr=False)
    asleep: bool = attrs.field(default=False, init=False)  # in S3
    _power_cycle: bool = attrs.field(default=True, init=False)  # of a reset that is asked for
    faults: TripleFaults = attrs.field(factory=TripleFaults, init=False)
    _pressed: bool = attrs.field(default=False, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @ranges.default
    def _default_ranges(self) -> tuple[MemoryRange, ...]:
        return guest_ranges(self.config.memory_bytes)

    def __attrs_post_init__(self) -> None:
        callbacks = PlatformCallbacks(
            poweroff=self._guest_powers_off,
            reset=self._guest_resets,
            suspend=lambda: self.request_stop(StopReason.SUSPEND, hold=True),
            debug_exit=lambda code: self.request_stop(StopReason.DEBUG_EXIT, f"code {code:#x}"),
            quit=self.press_power_button,
        )
        self.firmware = FirmwareSupport(self.config.firmware, self.files)
        self.platform = Platform(
            callbacks,
            uarts=self.config.uarts,
            debugexit=self.config.debugexit,
            fw_cfg=self.firmware.fw_cfg,
            pit=self.hypervisor is not None and self.hypervisor.needs_pit,
        )
        self.platform.pm.on_alarm(self.wake)
        self.standstill = Standstill(self.main_loop)
        self.dispatch = MachineDispatch(self.pio, self.mmio, self.bus, self._vm_event)

    @property
    def functions(self) -> tuple[PciFunction, ...]:
        """All PCI functions by bus, slot and function."""
        return self.bus.functions

    def check(self) -> list[str]:
        """What is missing on this host, one line each; opens and changes nothing."""
        checks: list[Callable[[], list[str]]] = [lambda: [] if self.problem is None else [self.problem]]
        checks += [lambda: loader.check(self.boot_plan()), self.firmware.check, self.platform.check]
        checks += [functools.partial(self._check, f) for f in self.functions]
        checks.append(lambda: parts.check_whole(self.config, self.bus, self.platform, self.firmware))
        return parts.all_problems(checks)

    def describe(self) -> MachineReport:
        """The machine as a record for ``--dry-run``."""
        return describe(self.config, self.bus, self.platform, self.hypervisor, self.providers, plugins=self.plugins)

    def boot_plan(self) -> loader.BootPlan:
        """What the loader is to put into memory."""
        ids = tuple(range(self.config.vcpus)) if self.vm is None else self.vm.apic_ids
        return boot_plan(
            self.config, self.bus, self.platform, self.ranges, apic_ids=ids, files=self.files, power=self._power
        )

    def realize(self) -> None:
        """Open hypervisor, memory and devices. On an error everything opened so far is closed by ``close``."""
        log_unchosen_backends(self.functions, self.plugins)
        self.open()
        self.connect()

    def open(self) -> None:
        """Open the hypervisor and give it the guest's memory. Raises ConfigError or HostError."""
        if self.problem is not None or self.hypervisor is None:
            raise ConfigError(self.problem or "no hypervisor")
        with blame(f"{self.plugins.provider(self.hypervisor)}: {self.hypervisor.name}"):
            self.vm = self.hypervisor.open(hypervisor_options(self.config, self.hypervisor))
        ranges = (*self.ranges, *self.firmware.open())
        self.memory = allocate_memory(self.config, ranges, wanted=self.vm.pins_memory)
        for region in self.memory.regions:
            self.vm.map_memory(region)
        if self.config.interrupt_monitor is not None and isinstance(self.vm, InterruptWatcher):
            self.vm.watch_interrupts(self.config.interrupt_monitor, self.main_loop.call_later)

    def connect(self) -> None:
        """Put the platform and the PCI bus on the buses, and let every device open what it needs."""
        assert self.vm is not None
        assert self.memory is not None
        resources = Resources(
            memory=self.memory,
            pio=self.pio,
            mmio=self.mmio,
            interrupts=self.vm,
            eventfds=parts.EventFdHooks(self.plugins, self.vm),
            main_loop=self.main_loop,
            io_loop=self.io_loop,
            device_failed=self._device_failed,
            quit=self.press_power_button,
            pause_guest=self._pause_guest,
        )
        self.platform.realize(resources)
        self.bus.attach(resources)
        for function in self.functions:
            with function.lock, self._blame(function):
                function.realize(resources)
        self.management = Management(self.main_loop, self.config, self._controls(), rtvm=self.config.rtvm)
        self.platform.rtc.on_set = self.management.clock_set

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
        while (reason := self._wait()) in (StopReason.SUSPEND, StopReason.RESET):
            if reason is StopReason.SUSPEND:
                self._sleep()
            else:
                self.reset()
                if self.reason is None:
                    self.boot()
        return self._stop()

    def boot(self) -> None:
        """Put kernel and tables into memory and let the vCPUs go."""
        assert self.vm is not None
        assert self.memory is not None
        self._power = self.vm.processor_power()
        self.firmware.prepare(self.boot_plan)
        self._start(loader.load(self.memory, self.boot_plan()))

    def _start(self, registers: BootRegisters) -> None:
        assert self.vm is not None
        self.dispatch.hold = False
        self.standstill.clear()
        self.vm.set_boot_registers(registers)
        self.plugins.observe("acrn_dm_machine_started", machine=self)
        self.faults.started()
        self.vm.run(self.dispatch)

    def reset(self) -> None:
        """Reboot: vCPUs stopped, everything as after power-on, in the same process."""
        assert self.vm is not None
        assert self.memory is not None
        log.info("the guest resets: %s", self.detail or "by its own request")
        if not self._halt(StopReason.RESET):
            return
        self._reset_devices()
        self.firmware.save(self.memory)
        self.vm.reset(full=self._power_cycle)
        self._power_cycle = True
        self.memory.clear(in_place=self.vm.pins_memory)
        self.reboots += 1

    def press_power_button(self) -> None:
        """Ask the guest to power off; the second time, or after the time-out, it is forced. Main thread or its
        signals.
        """
        self.main_loop.call_soon(self._press)

    def wake(self) -> None:
        """End the guest's sleep, if it sleeps. Any thread."""
        self.asleep = False
        self.main_loop.call_soon(lambda: None)

    def window_changed(self) -> None:
        """The terminal has another size: tell the consoles on it. Main thread or its signals."""
        self.main_loop.call_soon(self._window_changed)

    def request_stop(self, reason: StopReason, detail: str = "", *, hold: bool = False) -> None:
        """Stop the vCPUs soon; the first reason counts, but a stop for good outdoes a reset or a sleep. With *hold* the
        vCPU that asks does not run on. Any thread.
        """
        with self._lock:
            if self.reason in (None, StopReason.RESET, StopReason.SUSPEND):
                self.reason, self.detail = reason, detail
                self.dispatch.hold = hold
        self.main_loop.call_soon(lambda: None)

    def close(self) -> None:
        """Give everything back, in reverse order; goes on after errors and raises the first one at the end.
        Idempotent.
        """
        steps: list[Callable[[], object]] = [] if self.vm is None else [self.vm.stop]
        steps += [self.management.close] if self.management is not None else []
        steps += [lambda: self._quiesce(STOP_S), *(f.prepare_close for f in self.functions)]
        steps += [f.close for f in reversed(self.functions)]
        loops = [loop.close for loop in self.io_loops.values()]
        steps += [self.firmware.close, self.platform.close, *loops, self.main_loop.close]
        steps += [] if self.vm is None else [self.vm.close]
        if self.memory is not None:
            memory = self.memory
            steps.append(lambda: memory.abandon() if left_behind(self.functions) else memory.close())
        try:
            parts.do_all(steps)
        finally:
            self.io_loops, self.vm, self.memory = {}, None, None

    def _quiesce(self, seconds: float = math.inf) -> bool:
        """Wait for the devices, *seconds* at most and while nobody stops the machine for good; the loop goes on."""
        reason = self.reason
        return quiesce(self.functions, self.main_loop.step, seconds=seconds, go_on=lambda: self.reason is reason)

    def _controls(self) -> Controls:
        return Controls(
            state=lambda: power_state(self.reason, paused=self.asleep or self.standstill.standing),
            press_power_button=lambda: None if self._pressed else self._press(),
            power_off=lambda who: self.request_stop(StopReason.POWEROFF, who),
            insert_medium=functools.partial(parts.insert_medium, self.functions),
            resume=self._resume,
        )

    def _resume(self) -> bool:
        asleep = self.asleep
        self.wake()
        return self.standstill.resume() or asleep

    def _check(self, function: PciFunction) -> list[str]:
        with self._blame(function):
            return function.check()

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
            if self.standstill.wanted and self.reason is None:
                self._stand_still()
        return self.reason

    def _stand_still(self) -> None:
        assert self.vm is not None
        assert self.management is not None
        self.vm.pause()
        self.plugins.observe("acrn_dm_machine_stopped", machine=self, reason="paused")
        if self.standstill.hold(self.management, lambda: self.reason is not None):
            self.plugins.observe("acrn_dm_machine_started", machine=self)
            self.vm.resume()

    def _pause_guest(self, fault: HostFault) -> bool:
        pauses = self.hypervisor is not None and self.hypervisor.resumes
        if not pauses or self.management is None or not self.management.can_resume:
            return False
        self.standstill.ask(fault)
        return True

    def _taken(self, reason: StopReason) -> None:
        """What was asked for before the vCPUs stood still is being done; a reason to stop for good stays."""
        with self._lock:
            if self.reason is reason:
                self.reason, self.detail = None, ""

    def _stop(self) -> StopReason:
        """Off: vCPUs first, then every device finishes what is in flight."""
        assert self.vm is not None
        assert self.memory is not None
        assert self.reason is not None
        self.vm.stop()
        if self.reason is StopReason.POWEROFF and not self.detail and self.management is not None:
            self.management.powered_off()
        self._quiesce(STOP_S)
        self._reset_devices()
        self.firmware.save(self.memory)
        text = self.detail if self.reason is StopReason.ERROR else self.reason.value
        self.plugins.observe("acrn_dm_machine_stopped", machine=self, reason=text)
        return self.reason

    def _guest_resets(self, full: bool) -> None:
        self._power_cycle = full
        self.request_stop(StopReason.RESET, hold=not full)

    def _sleep(self) -> None:
        """S3: memory, clock and power management keep their power, everything else is as after power-on."""
        assert self.vm is not None
        assert self.memory is not None
        log.info("the guest sleeps")
        self.asleep = True
        if not self._halt(StopReason.SUSPEND):
            self.asleep = False
            return
        parts.reset_all(self.functions)
        self.platform.sleep()
        self.bus.reset()
        while self.asleep and self.reason is None:
            self.main_loop.step(None)
        self.asleep = False
        if self.reason is not None:  # it is forced off in its sleep
            return
        self.platform.wake()
        self.vm.reset()
        try:
            self._start(wake_registers(self.memory, self.boot_plan().acpi))
        except GuestError as e:
            log.error("%s; it boots anew", e)
            self.request_stop(StopReason.RESET, str(e))

    def _halt(self, reason: StopReason) -> bool:
        """vCPUs and devices stop; False if somebody stops the machine for good before the host is done."""
        assert self.vm is not None
        self.vm.pause()
        self._taken(reason)
        self.plugins.observe("acrn_dm_machine_stopped", machine=self, reason=reason.value)
        return self._quiesce()

    def _reset_devices(self) -> None:
        parts.reset_all(self.functions)
        self.platform.reset()
        self.bus.reset()

    def _press(self) -> None:
        if self.asleep:
            self.wake()
            return
        if self._pressed:
            self.request_stop(StopReason.FORCED, "asked a second time")
            return
        self._pressed = True
        log.info("power button pressed; the guest has %g s", self.config.shutdown_timeout_s)
        self.platform.press_power_button()
        late = "the guest did not power off in time"
        self.main_loop.call_later(self.config.shutdown_timeout_s, lambda: self.request_stop(StopReason.FORCED, late))

    def _guest_powers_off(self, sci_kept: bool) -> None:
        assert self.vm is not None
        if self.vm.fault_powers_off and self.faults.in_disguise(self.platform.pm.acpi_enabled, sci_kept):
            self._vm_event(VmEvent.TRIPLE_FAULT, "")
        else:
            self.request_stop(StopReason.POWEROFF)

    def _vm_event(self, event: VmEvent, detail: str) -> None:
        if event is VmEvent.TRIPLE_FAULT and self.management is not None:
            self.main_loop.call_soon(self.management.triple_fault)
        failure = self.faults.failure(event, detail)
        self.request_stop(StopReason.ERROR if failure else StopReason.RESET, failure or "triple fault")

    def _device_failed(self, device: object, error: Exception) -> None:
        # Observers are promised the main thread; devices report from wherever they were.
        self.main_loop.call_soon(lambda: self.plugins.observe("acrn_dm_device_failed", device=device, error=error))
