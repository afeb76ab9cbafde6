"""Linux KVM: vCPUs, local APICs, IOAPIC, PICs and timer run in the kernel; accesses that nothing there takes come here.

The virtual machine's file descriptor is replaced at reset: that alone puts every in-kernel device back to power-on.
"""

import threading

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage
from acrn_dm.base.records import define
from acrn_dm.contract.hypervisor import Dispatch
from acrn_dm.contract.processors import ProcessorPower
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.hypervisors.kvm import probe
from acrn_dm.hypervisors.kvm.eventfds import Bindings
from acrn_dm.hypervisors.kvm.gsi_routes import IOAPIC_PINS
from acrn_dm.hypervisors.kvm.module._system import CAP_IRQ_ROUTING, Kvm
from acrn_dm.hypervisors.kvm.module._vm import Vm
from acrn_dm.hypervisors.kvm.vcpus import Vcpus, checked_apic_ids
from acrn_dm.hypervisors.lifecycle import AT_REST, OPEN, Lifecycle, State
from acrn_dm.memory.guest_memory import MemoryRegion

# Four pages that KVM uses itself on Intel hosts; below the firmware window, outside RAM and the PCI windows.
IDENTITY_MAP_PAGE = 0xFFFB_C000
TSS_PAGES = 0xFFFB_D000


@define(eq=False)
class KvmVm:
    """One virtual machine; keeps ``contract.hypervisor.Hypervisor``. Made by ``open``.

    ``pause``, ``resume``, ``reset``, ``stop`` and ``close`` wait for vCPU threads and raise RuntimeError on one;
    everything else may be called from any thread.
    """

    name: str
    apic_ids: tuple[int, ...]
    _system: Kvm
    pins: tuple[int, ...] = ()  # the host CPU of each vCPU; empty: wherever the scheduler puts it
    vcpus: int = attrs.field(init=False)
    ioapic_pins: int = attrs.field(default=IOAPIC_PINS, init=False)
    pins_memory: bool = attrs.field(default=False, init=False)
    fault_powers_off: bool = attrs.field(default=False, init=False)
    _vm: Vm = attrs.field(init=False, repr=False)
    _vcpus: Vcpus = attrs.field(init=False, repr=False)
    _bindings: Bindings = attrs.field(init=False, repr=False)
    _slots: dict[MemoryRegion, int] = attrs.field(factory=dict, init=False, repr=False)
    _dispatch: Dispatch = attrs.field(init=False, repr=False)  # set by ``run``
    _life: Lifecycle = attrs.field(factory=Lifecycle, init=False)
    _control: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)  # life-cycle calls
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)  # _vm and the tables above

    def __attrs_post_init__(self) -> None:
        self.vcpus = len(self.apic_ids)
        self._vcpus = Vcpus(self.pins)

    @classmethod
    def open(
        cls,
        *,
        vcpus: int = 1,
        name: str = "vm",
        apic_ids: tuple[int, ...] = (),
        pins: tuple[int, ...] = (),
        allow_slow: bool = False,
    ) -> "KvmVm":
        """Create the virtual machine, without memory. Raises HostError, and ConfigError for impossible vCPUs.

        Without *allow_slow* a host whose KVM has no hardware to use is refused, as ``probe`` says.
        """
        reason = probe.unusable(probe.DEVICE) or (None if allow_slow else probe.slow(probe.CPUINFO))
        if reason is not None:
            raise HostError(f"kvm: {reason}")
        kvm = Kvm()
        try:
            vm = cls(name=name, apic_ids=checked_apic_ids(kvm, vcpus, apic_ids), system=kvm, pins=pins)
            vm._power_on()
        except BaseException:
            kvm.close()
            raise
        return vm

    # Power

    def _power_on(self) -> None:
        self._vm = self._system.create_vm()
        try:
            self._vm.set_low_pages(IDENTITY_MAP_PAGE, TSS_PAGES)
            self._vm.create_irqchip()
            self._vm.create_pit()
            self._bindings = Bindings.on(self._vm, self._system.check_extension(CAP_IRQ_ROUTING))
            for region, slot in self._slots.items():
                self._vm.set_memory(slot, region.gpa, region.size, region.hva)
            self._vcpus.create(self._system, self._vm, self.apic_ids)
        except BaseException:
            self._power_off()
            raise

    def _power_off(self) -> None:
        """Give vCPUs and virtual machine back; the kernel drops the eventfd bindings with the last descriptor."""
        self._vcpus.close()
        self._vm.close()

    # Memory

    def map_memory(self, region: MemoryRegion) -> None:
        """Make *region* guest RAM. Raises HostError."""
        with self._lock:
            slot = next(i for i in range(len(self._slots) + 1) if i not in self._slots.values())
            self._vm.set_memory(slot, region.gpa, region.size, region.hva)
            self._slots[region] = slot

    def unmap_memory(self, region: MemoryRegion) -> None:
        """*region* is no memory any more, if it was. Raises HostError."""
        with self._lock:
            slot = self._slots.pop(region, None)
            if slot is not None:
                self._vm.set_memory(slot, region.gpa, 0, region.hva)

    def _mend(self) -> bool:
        """After a fault of the host's in guest memory: whether a part of a device's file was gone, and zeros stand
        there now (``base.process._shortened``).
        """
        with self._lock:
            cut = [region for region in self._slots if region.watched and region.cut]
            for region in cut:
                region.mapping[region.size - 1]  # the bus error that brings the zeros
        return bool(cut)

    def processor_power(self) -> tuple[ProcessorPower, ...]:
        """None: idle states are the host's."""
        return ()

    # Life cycle

    def set_boot_registers(self, registers: BootRegisters) -> None:
        """Give vCPU 0 its entry state; the others wait for INIT and SIPI."""
        with self._control:
            self._life.require("set_boot_registers", *AT_REST)
            self._vcpus[0].set_boot_registers(registers)

    def run(self, dispatch: Dispatch) -> None:
        """Start the vCPUs; returns at once."""
        with self._control:
            self._life.require("run", State.READY)
            self._dispatch = dispatch
            self._start_vcpus()

    def pause(self) -> None:
        """Stop all vCPUs at an instruction boundary; when this returns none is in ``dispatch``."""
        self._leave_vcpu("pause")
        with self._control:
            if self._life.state is State.RUNNING:
                self._vcpus.join()
                self._life.state = State.PAUSED

    def resume(self) -> None:
        """Let them go on; nothing happens unless they are paused."""
        with self._control:
            if self._life.state is State.PAUSED:
                self._vcpus.was_paused()
                self._start_vcpus()

    def reset(self, *, full: bool = False) -> None:
        """Back to power-on; vCPUs are stopped, bindings gone, memory mapped. After a HostError only ``close`` works.

        Every reset is a *full* one: the virtual machine below is a new one.
        """
        self._leave_vcpu("reset")
        with self._control:
            self._life.require("reset", State.READY, State.RUNNING, State.PAUSED)
            self._vcpus.join()
            self._life.state = State.STOPPED
            with self._lock:
                self._power_off()
                self._power_on()
            self._life.state = State.READY

    def stop(self) -> None:
        """Stop for good; idempotent."""
        self._leave_vcpu("stop")
        with self._control:
            if self._life.state in OPEN:
                self._vcpus.join()
                self._life.state = State.STOPPED

    def close(self) -> None:
        """Give everything back; idempotent."""
        self._leave_vcpu("close")
        self.stop()
        with self._control, self._lock:
            if self._life.state is not State.CLOSED:
                self._life.state = State.CLOSED
                self._power_off()
                self._slots.clear()
                self._system.close()

    def _leave_vcpu(self, call: str) -> None:
        if self._vcpus.is_current:
            raise RuntimeError(f"{call} waits for the vCPU threads and can't be called on one")

    def _start_vcpus(self) -> None:
        self._life.state = State.RUNNING
        try:
            self._vcpus.start(self._dispatch, self._mend)
        except HostError:
            self._life.state = State.STOPPED
            raise

    # Interrupts and eventfds

    def inject_msi(self, message: MsiMessage) -> None:
        """Deliver *message* once. Raises HostError.

        One whose destination does not exist vanishes, as on hardware; so does one during ``reset`` or after ``close``.
        """
        self._vm.signal_msi(message.addr, message.data)

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        """Set the logical level of *gsi*; the in-kernel IOAPIC ignores polarity. Raises HostError."""
        if not 0 <= gsi < IOAPIC_PINS:
            raise ValueError(f"GSI {gsi} is no IOAPIC pin")
        self._vm.irq_line(gsi, asserted)

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register / unregister a kick. Raises HostError (EEXIST for a duplicate, ENOENT for an unknown one).

        Length 0 takes a write of any length; on MMIO that is KVM's fastest way, as it need not decode the instruction.
        """
        with self._lock:
            self._bindings.ioeventfd(binding, assign)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register / unregister a call. Raises HostError (EBUSY for an eventfd in use, ENOENT for an unknown one)."""
        with self._lock:
            self._bindings.irqfd(binding, assign)
