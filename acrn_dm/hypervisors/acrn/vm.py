"""A virtual machine of the ACRN hypervisor, through its kernel module. ``hsm`` and ``vhm`` are its two interfaces.

The hypervisor's own states rule what can be called (hypervisor/common/hypercall.c): START needs a VM that was just
created or reset, RESET and DESTROY need a paused one, and nothing lets a paused one go on. The kernel pins guest memory
for the life of the VM: pages may not be given back, and RAM can't be taken away.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage
from acrn_dm.base.records import define
from acrn_dm.contract.hypervisor import Dispatch
from acrn_dm.contract.interrupt_monitor import CallLater, InterruptMonitor
from acrn_dm.contract.processors import ProcessorPower
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn.cpus import Placement
from acrn_dm.hypervisors.acrn.instance import Instance, Wanted, run_all
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module.abi import GSI_SET_HIGH, GSI_SET_LOW, Abi, Device
from acrn_dm.hypervisors.acrn.module.errors import failed
from acrn_dm.hypervisors.acrn.module.interface import IOAPIC_PINS
from acrn_dm.hypervisors.acrn.monitor import StormMonitor
from acrn_dm.hypervisors.acrn.power import processor_power
from acrn_dm.hypervisors.lifecycle import AT_REST, OPEN, Lifecycle, State
from acrn_dm.memory.guest_memory import MemoryRegion

log = logging.getLogger(__name__)

FIRST_PCI_GSI = 16  # the pins from here on are PCI's: level-triggered, active low
MSI_WINDOW = 0xFEE  # bits 31:20 of an address at which local APICs take messages


@define(eq=False)
class AcrnVm:
    """One virtual machine; keeps ``contract.hypervisor.Hypervisor``. Made by ``open``.

    ``pause``, ``reset``, ``stop`` and ``close`` wait for the I/O request thread and raise RuntimeError on it;
    everything else may be called from any thread. After a HostError of one of them only ``stop`` and ``close`` work.
    """

    options: HypervisorOptions
    _wanted: Wanted = attrs.field(repr=False)
    ioapic_pins: int = attrs.field(default=IOAPIC_PINS, init=False)
    pins_memory: bool = attrs.field(default=True, init=False)
    fault_powers_off: bool = attrs.field(default=True, init=False)
    _made: Instance = attrs.field(init=False, repr=False)
    _regions: list[MemoryRegion] = attrs.field(factory=list, init=False, repr=False)
    _levels: dict[int, bool] = attrs.field(factory=dict, init=False, repr=False)  # logical, of each line in use
    _watch: Callable[[], StormMonitor] | None = attrs.field(default=None, init=False, repr=False)
    _monitor: StormMonitor | None = attrs.field(default=None, init=False, repr=False)
    _life: Lifecycle = attrs.field(factory=Lifecycle, init=False)
    _control: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)  # life-cycle calls
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)  # bindings and regions

    @classmethod
    def open(
        cls,
        abi: Abi,
        options: HypervisorOptions,
        placement: Placement,
        *,
        open_device: Callable[[str], Device] = _hsm.Device,
        sleep: Callable[[float], None] = time.sleep,
    ) -> "AcrnVm":
        """Create the virtual machine, without memory. Raises HostError.

        *open_device* and *sleep* are for tests: what stands for the kernel module, and how the time passes.
        """
        wanted = Wanted(abi=abi, options=options, placement=placement, open_device=open_device, sleep=sleep)
        vm = cls(options, wanted)
        vm._power_on()
        return vm

    @property
    def name(self) -> str:
        """The virtual machine's name."""
        return self.options.name

    @property
    def vcpus(self) -> int:
        """How many the hypervisor made."""
        return self._made.vcpus

    @property
    def apic_ids(self) -> tuple[int, ...]:
        """Of each vCPU: the host's LAPIC ids on the hypervisor's orders, or its own count."""
        return self._wanted.placement.apic_ids or tuple(range(self.vcpus))

    # Power

    def _power_on(self) -> None:
        """Have the hypervisor make one, and give it what the one before had. Raises HostError."""
        self._made = Instance.create(self._wanted)
        try:
            for region in self._regions:
                self._made.port.call("SET_MEMSEG", self._wanted.abi.ram(region))
            for gsi in sorted(self._levels):
                self._drive(gsi, False)
            self._monitor = None if self._watch is None else self._watch()
        except BaseException:
            self._made.abandon()
            raise

    def _destroy(self) -> None:
        """Take the virtual machine down and close the device. Raises HostError, when all is done."""
        if self._made.port.is_open and self._monitor is not None:
            self._monitor.close()
        self._made.destroy()

    # Memory

    def map_memory(self, region: MemoryRegion) -> None:
        """Make *region* guest RAM. Raises HostError."""
        with self._lock:
            if any(region.gpa < r.gpa + r.size and r.gpa < region.gpa + region.size for r in self._regions):
                raise failed("SET_MEMSEG", errno.EEXIST)
            self._made.port.call("SET_MEMSEG", self._wanted.abi.ram(region))
            self._regions.append(region)

    def processor_power(self) -> tuple[ProcessorPower, ...]:
        """What the hypervisor tells about power states, one a vCPU; empty when it tells nothing."""
        return processor_power(self._made.port, self._made.vmid, self.vcpus)

    def watch_interrupts(self, settings: InterruptMonitor, call_later: CallLater) -> None:
        """Look out for interrupt storms from now on, again after each full reset, until the machine is closed."""
        self._watch = lambda: StormMonitor(self._made.port, settings, call_later)
        self._monitor = self._watch()

    # Life cycle

    def set_boot_registers(self, registers: BootRegisters) -> None:
        """Give vCPU 0 its entry state; the others wait for INIT and SIPI."""
        with self._control:
            self._life.require("set_boot_registers", *AT_REST)
            self._made.port.call("SET_VCPU_REGS", self._wanted.abi.vcpu_regs(registers))

    def run(self, dispatch: Dispatch) -> None:
        """Start the vCPUs; returns at once."""
        with self._control:
            self._life.require("run", State.READY)
            self._life.state = State.STOPPED
            self._made.requests.start(dispatch)
            self._made.start()
            self._life.state = State.RUNNING
            self._made.requests.resume()

    def pause(self) -> None:
        """Stop all vCPUs at an instruction boundary; when this returns none is in ``dispatch``. There is no way on."""
        self._leave_request_thread("pause")
        with self._control:
            if self._life.state is State.RUNNING:
                self._rest()

    def resume(self) -> None:
        """Raises HostError on a paused machine: the hypervisor has no such call."""
        with self._control:
            if self._life.state is State.PAUSED:
                raise HostError("ACRN can't let a paused VM go on", hint="reset it")

    def reset(self, *, full: bool = False) -> None:
        """Back to power-on; vCPUs are stopped, bindings gone, memory mapped.

        With *full* the virtual machine is destroyed and made again, as if power had been off; else the hypervisor
        resets it in place.
        """
        self._leave_request_thread("reset")
        with self._control:
            self._life.require("reset", State.READY, State.RUNNING, State.PAUSED)
            if self._life.state is State.RUNNING:
                self._rest()
            self._life.state = State.STOPPED
            self._make_anew() if full else self._reset_in_place()
            self._life.state = State.READY

    def stop(self) -> None:
        """Stop for good; idempotent. Goes on after errors and raises the first one at the end."""
        self._leave_request_thread("stop")
        with self._control:
            if self._life.state not in OPEN:
                return
            started = self._life.state in (State.RUNNING, State.PAUSED)
            self._life.state = State.STOPPED
            self._made.requests.pause()
            run_all([*([self._made.pause] if started else []), self._made.requests.end])

    def close(self) -> None:
        """Give everything back; idempotent. Goes on after errors and raises the first one at the end."""
        self._leave_request_thread("close")
        with self._control:
            if self._life.state is State.CLOSED:
                return
            self._life.state = State.CLOSED
            self._made.requests.pause()
            with self._lock:
                self._regions.clear()
                self._destroy()

    def _rest(self) -> None:
        """Pause; a request that was answered but not finished is cleared: its vCPU goes nowhere any more."""
        self._life.state = State.STOPPED
        self._made.requests.pause()
        self._made.pause()
        if self._made.requests.withheld:
            self._made.clear_requests()
        self._life.state = State.PAUSED

    def _reset_in_place(self) -> None:
        self._made.pause()
        self._made.clear_requests()
        with self._lock:
            self._made.bindings.clear()
        for gsi in [gsi for gsi, asserted in tuple(self._levels.items()) if asserted]:
            self._drive(gsi, False)  # the hypervisor's IOAPIC remembers levels across a reset
        self._made.reset()

    def _make_anew(self) -> None:
        with self._lock:
            self._destroy()
            self._power_on()

    def _leave_request_thread(self, call: str) -> None:
        if self._made.requests.is_current:
            raise RuntimeError(f"{call} waits for the vCPU threads and can't be called on one")

    # Interrupts and eventfds

    def inject_msi(self, message: MsiMessage) -> None:
        """Deliver *message* once. Raises HostError.

        One that goes to no local APIC's window is a write to nowhere; one to a machine that is closed, vanishes.
        """
        if message.addr >> 20 & 0xFFF == MSI_WINDOW:
            self._short_call("INJECT_MSI", _hsm.msi_entry(message.addr, message.data))

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        """Set the logical level of *gsi*: pins of PCI are active low, those of ISA and the SCI active high.

        Raises HostError; nothing happens on a machine that is closed.
        """
        if not 0 <= gsi < IOAPIC_PINS:
            raise ValueError(f"GSI {gsi} is no IOAPIC pin")
        self._drive(gsi, asserted)

    def _drive(self, gsi: int, asserted: bool) -> None:
        """The argument is gsi (bits 31:0) and operation (63:32) by value, not their address."""
        self._levels[gsi] = asserted
        high = asserted is (gsi < FIRST_PCI_GSI)
        self._short_call("SET_IRQLINE", (GSI_SET_HIGH if high else GSI_SET_LOW) << 32 | gsi)

    def _short_call(self, name: str, argument: int | bytearray) -> None:
        """Any thread may make it any time; on a device that is closed it comes to nothing."""
        result = self._made.port.attempt(name, argument, may_sleep=False)
        if result < 0 and result != -errno.EBADF:
            raise failed(name, -result)

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register / unregister a kick. Raises HostError (EEXIST for a duplicate, ENOENT for an unknown one)."""
        with self._lock:
            self._life.require("ioeventfd", *OPEN)
            (self._made.bindings.assign_kick if assign else self._made.bindings.deassign_kick)(binding)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register / unregister a call, to a message only. Raises HostError (EBUSY, ENOENT; EINVAL for a line)."""
        with self._lock:
            self._life.require("irqfd", *OPEN)
            (self._made.bindings.assign_call if assign else self._made.bindings.deassign_call)(binding)
