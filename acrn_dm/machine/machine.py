"""The order of a machine's life: realize -> run -> close. Every step is a method whose name is the step.

``Machine.realize`` opens memory, hypervisor and devices; ``Machine.run`` boots the guest and does what its power says
(``machine.power``) until it is off; ``Machine.close`` gives everything back in reverse order, whatever happened before.
What its parts are, and how they are joined, is in ``machine.build``.
"""

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from acrn_dm.base.errors import GuestError
from acrn_dm.base.events.io_loops import IoLoops
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define
from acrn_dm.base.steps import do_all
from acrn_dm.boot import loader
from acrn_dm.boot.wake import wake_registers
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.eventfd_hooks import EventFdHooks
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.interrupt_monitor import InterruptWatcher
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.contract.resources import Resources
from acrn_dm.machine.boot_source import BootSource
from acrn_dm.machine.check import check_machine
from acrn_dm.machine.device_memory import add_memory, set_window
from acrn_dm.machine.devices import Devices
from acrn_dm.machine.dispatch import MachineDispatch
from acrn_dm.machine.firmware import FirmwareSupport
from acrn_dm.machine.hypervisor import ChosenHypervisor
from acrn_dm.machine.power import Power, State
from acrn_dm.machine.requests import GuestRequests, PowerButton, controls
from acrn_dm.management import Management, Standstill, StopReason
from acrn_dm.memory.allocate import allocate
from acrn_dm.memory.guest_memory import GuestMemory
from acrn_dm.pci.function import PciFunction
from acrn_dm.pci.quiesce import left_behind

if TYPE_CHECKING:
    from acrn_dm.backends.broker.client import Broker
    from acrn_dm.machine.report import MachineReport

__all__ = ("Machine", "StopReason")

log = logging.getLogger(__name__)

STOP_S = 5.0  # a host that does not finish what is in flight keeps a machine that goes off no longer


@define(eq=False)
class Opened:
    """The parts that there are from ``open`` to ``close``; *management* from ``connect`` on."""

    vm: Hypervisor
    memory: GuestMemory
    management: Management | None = None


@define(eq=False, kw_only=True)
class Machine:
    """One virtual machine: its parts, and the order of what is done with them. Owned by the main thread; what any
    thread may do to it is ``power``'s.
    """

    config: MachineConfig
    plugins: PluginManager = attrs.field(repr=False)
    hypervisor: ChosenHypervisor
    devices: Devices = attrs.field(repr=False)
    boot_source: BootSource = attrs.field(repr=False)
    firmware: FirmwareSupport = attrs.field(repr=False)
    main_loop: IoLoop = attrs.field(repr=False)
    io_loops: IoLoops = attrs.field(repr=False)
    power: Power
    guest: GuestRequests = attrs.field(repr=False)
    button: PowerButton = attrs.field(repr=False)
    standstill: Standstill = attrs.field(repr=False)
    dispatch: MachineDispatch = attrs.field(repr=False)
    opened: Opened | None = attrs.field(default=None, init=False)
    broker: "Broker | None" = attrs.field(default=None, init=False, repr=False)  # of a process without its rights

    @property
    def functions(self) -> tuple[PciFunction, ...]:
        """All PCI functions by bus, slot and function."""
        return self.devices.functions

    @property
    def vm(self) -> Hypervisor | None:
        """The virtual machine, while it is open."""
        return None if self.opened is None else self.opened.vm

    @property
    def memory(self) -> GuestMemory | None:
        """The guest's memory, while it is open."""
        return None if self.opened is None else self.opened.memory

    @property
    def detail(self) -> str:
        """More about why it stopped."""
        return self.power.detail

    def check(self) -> list[str]:
        """What is missing on this host, one line each; opens and changes nothing."""
        return check_machine(self.config, self.devices, self.boot_source, self.firmware, self.hypervisor)

    def describe(self) -> "MachineReport":
        """The machine as a record for ``--dry-run``, which alone imports what makes it."""
        from acrn_dm.machine.describe import describe  # noqa: PLC0415

        return describe(self.config, self.devices, self.hypervisor.type, self.plugins)

    def realize(self) -> None:
        """Open hypervisor, memory and devices, then give up rights, as the user wishes. On an error everything opened
        so far is closed by ``close``.
        """
        for line in self.devices.unchosen_backends(self.plugins):  # of which --dry-run has notes
            log.info("%s", line)
        if not self.config.gives_up_rights:
            self.open()
            self.connect()
            return
        from acrn_dm.machine.rights import giving_up  # noqa: PLC0415  # few do

        self.broker = giving_up.keep(self.config, self.functions)
        self.open()
        self.connect()
        if self.memory is not None:
            giving_up.entrust(self.broker, self.memory)
        giving_up.release(self.config, self.functions, self.hypervisor.type)

    def open(self) -> None:
        """Open the hypervisor and give it the guest's memory. Raises ConfigError or HostError."""
        config = self.config
        with contextlib.ExitStack() as undo:
            vm = self.hypervisor.open(config, self.plugins)
            undo.callback(vm.close)
            undo.callback(vm.stop)
            ranges = (*self.boot_source.ranges, *self.firmware.open())
            memory = allocate(ranges, hugepages=config.hugepages, wanted=vm.pins_memory, dumped=config.dump_guest_core)
            undo.pop_all()
        memory.keeper = "the hypervisor" if vm.pins_memory else None
        self.opened = Opened(vm, memory)
        for region in memory.regions:
            vm.map_memory(region)
        if config.interrupt_monitor is not None and isinstance(vm, InterruptWatcher):
            vm.watch_interrupts(config.interrupt_monitor, self.main_loop.call_later)

    def connect(self) -> None:
        """Put the devices on the buses and let each open what it needs; then let managers in."""
        assert self.opened is not None
        vm, loop = self.opened.vm, self.main_loop
        resources = Resources(
            memory=self.opened.memory,
            pio=self.dispatch.pio,
            mmio=self.dispatch.mmio,
            interrupts=vm,
            eventfds=EventFdHooks(self.plugins, vm),
            main_loop=loop,
            clock=loop.clock,
            io_loop=self.io_loops.get,
            # Observers are promised the main thread; devices report from wherever they were.
            device_failed=lambda device, error: loop.call_soon(
                lambda: self.plugins.observe("acrn_dm_device_failed", device=device, error=error)
            ),
            add_memory=functools.partial(add_memory, vm, self.opened.memory, dumped=self.config.dump_guest_core),
            window=functools.partial(set_window, vm),
            quit=self.press_power_button,
            off_wanted=lambda: self.button.wanted,
            pause_guest=self.standstill.pause_guest,
        )
        self.guest.fault_powers_off = vm.fault_powers_off
        self.devices.realize(resources)
        allowed = controls(self.power, self.button, self.standstill, self.devices)
        management = Management(loop, self.config, allowed, rtvm=self.config.rtvm)
        self.opened.management = management
        self.devices.platform.rtc.on_set = management.clock_set
        self.guest.on_triple_fault = lambda: loop.call_soon(management.triple_fault)
        self.standstill.possible = lambda: self.hypervisor.resumes and management.can_resume

    def run(self) -> StopReason:
        """Boot, and do what the power says, until the guest is off. Returns why; ``detail`` says more."""
        self.boot()
        while not self.power.over:
            if self.power.state is State.RUNNING:
                self._turn()
            elif self.power.state is State.RESETTING:
                self.reset()
            elif self.power.state is State.RESTARTING:
                self.boot()
            else:
                self._sleep()
        return self._stop()

    def boot(self) -> None:
        """Put kernel and tables into memory and let the vCPUs go."""
        assert self.opened is not None
        self.boot_source.processors_of(self.opened.vm)
        self.firmware.prepare(self.boot_source.plan)
        self._start(loader.load(self.opened.memory, self.boot_source.plan()))

    def reset(self) -> None:
        """Reboot: vCPUs stopped, everything as after power-on, in the same process."""
        assert self.opened is not None
        log.info("the guest resets: %s", self.detail or "by its own request")
        if not self._halt(StopReason.RESET):
            return
        self.devices.reset()
        self.firmware.save(self.opened.memory)
        self.opened.vm.reset(full=self.power.full_reset)
        self.opened.memory.clear(in_place=self.opened.vm.pins_memory)

    def press_power_button(self) -> None:
        """Ask the guest to power off; the second time, or after the time-out, it is forced. Main thread or its
        signals.
        """
        self.button.press_soon()

    def window_changed(self) -> None:
        """The terminal has another size: tell the consoles on it. Main thread or its signals."""
        self.main_loop.call_soon(self.devices.window_changed)

    def close(self) -> None:
        """Give everything back, in reverse order; goes on after errors and raises the first one at the end.
        Idempotent.
        """
        opened, platform = self.opened, self.devices.platform
        steps: list[Callable[[], object]] = [] if opened is None else [opened.vm.stop]
        steps += [] if opened is None or opened.management is None else [opened.management.close]
        rest = self.power.unless_stopped()
        steps += [lambda: self.devices.quiesce(self.main_loop.step, seconds=STOP_S, go_on=rest)]
        steps += [*self.devices.closing(), self.firmware.close, platform.close]
        steps += [self.io_loops.close, self.main_loop.close]
        if opened is not None:
            memory = opened.memory
            steps.append(opened.vm.close)
            steps.append(lambda: memory.abandon() if left_behind(self.functions) else memory.close())
        steps += [] if self.broker is None else [self.broker.close]
        try:
            do_all(steps)
        finally:
            self.opened = self.broker = None

    def _start(self, registers: BootRegisters) -> None:
        assert self.opened is not None
        self.power.started()
        self.standstill.clear()
        self.opened.vm.set_boot_registers(registers)
        self.plugins.observe("acrn_dm_machine_started", machine=self)
        self.guest.faults.started()
        self.opened.vm.run(self.dispatch)

    def _turn(self) -> None:
        """One step of the loop; or many, while the guest stands still."""
        assert self.opened is not None
        self.main_loop.step(None)
        if not self.standstill.wanted or self.power.state is not State.RUNNING:
            return
        assert self.opened.management is not None
        self.opened.vm.pause()
        self.plugins.observe("acrn_dm_machine_stopped", machine=self, reason="paused")
        if self.standstill.hold(self.opened.management, lambda: self.power.state is not State.RUNNING):
            self.plugins.observe("acrn_dm_machine_started", machine=self)
            self.opened.vm.resume()

    def _sleep(self) -> None:
        """S3: memory, clock and power management keep their power, everything else is as after power-on."""
        assert self.opened is not None
        log.info("the guest sleeps")
        if not self._halt(StopReason.SUSPEND):
            return
        self.devices.sleep()
        self.power.at_rest()
        while self.power.state is State.ASLEEP:
            self.main_loop.step(None)
        if self.power.state is not State.WAKING:  # it is reset, or forced off, in its sleep
            return
        self.devices.platform.wake()
        self.opened.vm.reset()
        try:
            self._start(wake_registers(self.opened.memory, self.boot_source.plan().acpi))
        except GuestError as e:
            log.error("%s; it boots anew", e)
            self.power.request(StopReason.RESET, str(e))

    def _halt(self, reason: StopReason) -> bool:
        """vCPUs and devices come to rest; False if somebody stops the machine for good before the host is done."""
        assert self.opened is not None
        self.opened.vm.pause()
        if reason is StopReason.RESET:
            self.power.restarting()
        self.plugins.observe("acrn_dm_machine_stopped", machine=self, reason=reason.value)
        return self.devices.quiesce(self.main_loop.step, go_on=self.power.unless_stopped())

    def _stop(self) -> StopReason:
        """Off: vCPUs first, then every device finishes what is in flight."""
        assert self.opened is not None
        reason = self.power.reason
        assert reason is not None
        self.opened.vm.stop()
        if reason is StopReason.POWEROFF and not self.detail and self.opened.management is not None:
            self.opened.management.powered_off()
        self.devices.quiesce(self.main_loop.step, seconds=STOP_S, go_on=self.power.unless_stopped())
        self.devices.reset()
        self.firmware.save(self.opened.memory)
        text = self.detail if reason is StopReason.ERROR else reason.value
        self.plugins.observe("acrn_dm_machine_stopped", machine=self, reason=text)
        return reason
