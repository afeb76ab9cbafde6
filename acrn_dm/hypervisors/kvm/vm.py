"""Linux KVM: vCPUs, local APICs, IOAPIC, PICs and timer run in the kernel; accesses that nothing there takes come here.

A vCPU's thread lives from ``run`` or ``resume`` to the next ``pause``: a vCPU at rest is a thread that has been joined.
The virtual machine's file descriptor is replaced at reset: that alone puts every in-kernel device back to power-on.
"""

import errno
import logging
import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path

import attrs

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.hypervisor import Dispatch, Hypervisor, VmEvent
from acrn_dm.contract.processors import ProcessorPower
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.contract.types import HypervisorOptions, HypervisorType
from acrn_dm.hypervisors.kvm import _kvm, host_cpus
from acrn_dm.hypervisors.kvm.cpuid import CpuidLeaf, Topology, guest_cpuid
from acrn_dm.hypervisors.kvm.gsi_routes import IOAPIC_PINS, Chips, MsiRoutes, pin_routes
from acrn_dm.hypervisors.lifecycle import AT_REST, OPEN, Lifecycle, State
from acrn_dm.memory.guest_memory import MemoryRegion

log = logging.getLogger(__name__)

DEVICE = Path("/dev/kvm")
CPUINFO = Path("/proc/cpuinfo")
CHIPS = Chips(pic_master=_kvm.CHIP_PIC_MASTER, pic_slave=_kvm.CHIP_PIC_SLAVE, ioapic=_kvm.CHIP_IOAPIC)

# Four pages that KVM uses itself on Intel hosts; below the firmware window, outside RAM and the PCI windows.
IDENTITY_MAP_PAGE = 0xFFFB_C000
TSS_PAGES = 0xFFFB_D000

MAX_APIC_ID = 254  # 255 is broadcast; more needs x2APIC destinations in MSIs
# What firmware leaves: fast string instructions, and memory write-back unless the guest says otherwise (Intel SDM 4).
FIRMWARE_MSRS = ((0x1A0, 1), (0x2FF, 1 << 11 | 6))  # IA32_MISC_ENABLE: fast strings; IA32_MTRR_DEF_TYPE: enabled, WB


def _unusable(device: Path) -> str | None:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"no {device}: load kvm_intel or kvm_amd, and enable virtualization in the firmware"
    except PermissionError:
        return f"no permission to open {device}: join the group that owns it"
    except OSError as e:
        return f"opening {device}: {e.strerror}"
    return None


def _slow(cpuinfo: Path) -> str | None:
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        return None  # without /proc nobody can tell
    if flags is None or {"vmx", "svm"} & set(flags[1].split()):
        return None
    return "host CPU flags show neither vmx nor svm (KVM would run stock kernels by instruction emulation: hours)"


def probe(device: Path = DEVICE, cpuinfo: Path = CPUINFO) -> str | None:
    """Say in one line why KVM can't be used here; None if it can."""
    return _unusable(device) or _slow(cpuinfo)


def _apic_ids(kvm: _kvm.Kvm, vcpus: int, apic_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Check the number of vCPUs and their APIC ids; without ids they are 0, 1, 2 and so on. Raises ConfigError."""
    most = min(kvm.check_extension(_kvm.CAP_MAX_VCPUS), MAX_APIC_ID + 1)
    if not 1 <= vcpus <= most:
        raise ConfigError(f"this host's KVM allows 1 to {most} vCPUs", option="vcpus", value=vcpus)
    ids = apic_ids or tuple(range(vcpus))
    if len(ids) != vcpus or len(set(ids)) != vcpus or not all(0 <= i <= MAX_APIC_ID for i in ids):
        raise ConfigError(f"needs {vcpus} different APIC ids, 0 to {MAX_APIC_ID}", option="apic_ids", value=ids)
    return ids


@attrs.define(eq=False)
class KvmVm:
    """One virtual machine; keeps ``base.Hypervisor``. Made by ``open``.

    ``pause``, ``resume``, ``reset``, ``stop`` and ``close`` wait for vCPU threads and raise RuntimeError on one;
    everything else may be called from any thread.
    """

    name: str
    apic_ids: tuple[int, ...]
    _system: _kvm.Kvm
    pins: tuple[int, ...] = ()  # the host CPU of each vCPU; empty: wherever the scheduler puts it
    vcpus: int = attrs.field(init=False)
    ioapic_pins: int = attrs.field(default=IOAPIC_PINS, init=False)
    pins_memory: bool = attrs.field(default=False, init=False)
    fault_powers_off: bool = attrs.field(default=False, init=False)
    _vm: _kvm.Vm = attrs.field(init=False, repr=False)
    _vcpus: list[_kvm.Vcpu] = attrs.field(factory=list, init=False, repr=False)
    _routes: MsiRoutes = attrs.field(init=False, repr=False)
    _slots: dict[MemoryRegion, int] = attrs.field(factory=dict, init=False, repr=False)
    _irqfds: set[tuple[int, MsiMessage | IntxLine]] = attrs.field(factory=set, init=False, repr=False)
    _ended: set[_kvm.Vcpu] = attrs.field(factory=set, init=False, repr=False)  # those that reported a VmEvent
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False, repr=False)
    _dispatch: Dispatch = attrs.field(init=False, repr=False)  # set by ``run``
    _life: Lifecycle = attrs.field(factory=Lifecycle, init=False)
    _control: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)  # life-cycle calls
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)  # _vm and the tables above

    def __attrs_post_init__(self) -> None:
        self.vcpus = len(self.apic_ids)

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
        reason = _unusable(DEVICE) or (None if allow_slow else _slow(CPUINFO))
        if reason is not None:
            raise HostError(f"kvm: {reason}")
        kvm = _kvm.Kvm()
        try:
            vm = cls(name=name, apic_ids=_apic_ids(kvm, vcpus, apic_ids), system=kvm, pins=pins)
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
            limit = self._system.check_extension(_kvm.CAP_IRQ_ROUTING)
            self._routes = MsiRoutes(limit, lambda msis: self._vm.set_gsi_routing(pin_routes(CHIPS), msis))
            self._vm.set_gsi_routing(pin_routes(CHIPS), [])
            for region, slot in self._slots.items():
                self._vm.set_memory(slot, region.gpa, region.size, region.hva)
            self._create_vcpus()
        except BaseException:
            self._power_off()
            raise

    def _create_vcpus(self) -> None:
        supported = [
            CpuidLeaf(function=f, index=i, flags=flags, eax=a, ebx=b, ecx=c, edx=d)
            for f, i, flags, a, b, c, d in self._system.supported_cpuid()
        ]
        deadline = bool(self._system.check_extension(_kvm.CAP_TSC_DEADLINE_TIMER))
        if self.apic_ids[0] != 0:
            self._vm.set_boot_cpu(self.apic_ids[0])
        for apic_id in self.apic_ids:
            vcpu = self._vm.create_vcpu(apic_id)
            self._vcpus.append(vcpu)
            place = Topology(apic_id=apic_id, apic_ids=self.apic_ids, tsc_deadline=deadline, tsc_khz=vcpu.tsc_khz())
            vcpu.set_cpuid([attrs.astuple(leaf) for leaf in guest_cpuid(supported, place)])
            vcpu.set_msrs(FIRMWARE_MSRS)
            vcpu.wire_lint()

    def _power_off(self) -> None:
        """Give vCPUs and virtual machine back; the kernel drops the eventfd bindings with the last descriptor."""
        for vcpu in self._vcpus:
            vcpu.close()
        self._vcpus.clear()
        self._ended.clear()
        self._irqfds.clear()
        self._vm.close()

    # Memory

    def map_memory(self, region: MemoryRegion) -> None:
        """Make *region* guest RAM. Raises HostError."""
        with self._lock:
            slot = next(i for i in range(len(self._slots) + 1) if i not in self._slots.values())
            self._vm.set_memory(slot, region.gpa, region.size, region.hva)
            self._slots[region] = slot

    def unmap_memory(self, region: MemoryRegion) -> None:
        """Take *region* away again. Raises HostError, ENOENT if it is not mapped."""
        with self._lock:
            if region not in self._slots:
                raise _kvm.failed("KVM_SET_USER_MEMORY_REGION", errno.ENOENT)
            self._vm.set_memory(self._slots[region], region.gpa, 0, 0)
            del self._slots[region]

    def processor_power(self) -> tuple[ProcessorPower, ...]:
        """None: idle states are the host's."""
        return ()

    # Life cycle

    def set_boot_registers(self, registers: BootRegisters) -> None:
        """Give vCPU 0 its entry state; the others wait for INIT and SIPI."""
        with self._control:
            self._life.require("set_boot_registers", *AT_REST)
            self._vcpus[0].set_boot_registers(registers)

    def registers(self, vcpu: int = 0) -> dict[str, int]:
        """Return general registers of a vCPU by name; while the machine is at rest."""
        with self._control:
            self._life.require("registers", *AT_REST)
            return self._vcpus[vcpu].registers()

    def run(self, dispatch: Dispatch) -> None:
        """Start the vCPUs; returns at once."""
        with self._control:
            self._life.require("run", State.READY)
            self._dispatch = dispatch
            self._start_threads()

    def pause(self) -> None:
        """Stop all vCPUs at an instruction boundary; when this returns none is in ``dispatch``."""
        self._leave_vcpu("pause")
        with self._control:
            if self._life.state is State.RUNNING:
                self._join_threads()
                self._life.state = State.PAUSED

    def resume(self) -> None:
        """Let them go on; nothing happens unless they are paused."""
        with self._control:
            if self._life.state is State.PAUSED:
                for vcpu in self._vcpus:
                    vcpu.was_paused()
                self._start_threads()

    def reset(self, *, full: bool = False) -> None:
        """Back to power-on; vCPUs are stopped, bindings gone, memory mapped. After a HostError only ``close`` works.

        Every reset is a *full* one: the virtual machine below is a new one.
        """
        self._leave_vcpu("reset")
        with self._control:
            self._life.require("reset", State.READY, State.RUNNING, State.PAUSED)
            self._join_threads()
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
                self._join_threads()
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
        if threading.current_thread() in self._threads:
            raise RuntimeError(f"{call} waits for the vCPU threads and can't be called on one")

    def _start_threads(self) -> None:
        self._life.state = State.RUNNING
        for i, vcpu in enumerate(self._vcpus):
            if vcpu in self._ended:
                continue
            vcpu.arm()
            pin = self.pins[i] if self.pins else None
            thread = threading.Thread(target=self._run_vcpu, args=(vcpu, pin), name=f"vcpu {i}", daemon=True)
            self._threads.append(thread)  # first: the thread may ask at once whether it is one of them
            try:
                thread.start()
            except RuntimeError as e:
                self._threads.pop()
                self._join_threads()
                self._life.state = State.STOPPED
                raise HostError(f"starting the thread of vCPU {i}: {e}", hint="raise the limit of processes") from e

    def _join_threads(self) -> None:
        for vcpu in self._vcpus:
            vcpu.kick()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _run_vcpu(self, vcpu: _kvm.Vcpu, pin: int | None) -> None:
        if pin is not None:
            _pin_this_thread(pin)
        try:
            ended = vcpu.run(self._dispatch)
        except Exception as e:
            log.exception("an access of the guest failed")
            ended = ("INTERNAL_ERROR", f"an access of the guest failed: {e!r}")
        if ended is None:
            return
        self._ended.add(vcpu)
        event, detail = ended
        try:
            self._dispatch.vm_event(VmEvent[event], detail)
        except Exception:
            log.exception("nobody took the event %s: %s", event, detail)

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
        pio = binding.space is Space.PIO
        with self._lock:
            self._vm.ioeventfd(binding.fd, binding.addr, binding.len, binding.datamatch, pio, assign)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register / unregister a call. Raises HostError (EBUSY for an eventfd in use, ENOENT for an unknown one)."""
        with self._lock:
            if assign:
                self._assign_irqfd(binding)
            else:
                self._deassign_irqfd(binding)

    def _assign_irqfd(self, binding: IrqFd) -> None:
        target = binding.target
        gsi = target.gsi if isinstance(target, IntxLine) else self._routes.acquire(target)
        try:
            self._vm.irqfd(binding.fd, gsi, binding.resample_fd, True)
        except HostError:
            if isinstance(target, MsiMessage):
                self._routes.release(target)
            raise
        self._irqfds.add((binding.fd, target))

    def _deassign_irqfd(self, binding: IrqFd) -> None:
        target = binding.target
        if (binding.fd, target) not in self._irqfds:  # KVM itself ignores it
            raise _kvm.failed("KVM_IRQFD", errno.ENOENT)
        gsi = target.gsi if isinstance(target, IntxLine) else self._routes.gsi(target)
        self._vm.irqfd(binding.fd, gsi, None, False)
        self._irqfds.remove((binding.fd, target))
        if isinstance(target, MsiMessage):
            self._routes.release(target)


def _pin_this_thread(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as e:  # it was possible when the machine was opened: the CPU has gone offline since
        log.warning("%s: a vCPU can't be pinned to CPU %d: %s", host_cpus.OPTION, cpu, e.strerror)


def check(options: HypervisorOptions) -> list[str]:
    """What is missing on this host for *options*, one line each."""
    try:
        host_cpus.placement(options.cpu_affinity)
    except ConfigError as e:
        return [str(e)]
    return []


def open_vm(options: HypervisorOptions) -> KvmVm:
    """Make a virtual machine as *options* say. Raises HostError and ConfigError."""
    return KvmVm.open(
        vcpus=options.vcpus,
        name=options.name,
        apic_ids=options.apic_ids,
        pins=host_cpus.placement(options.cpu_affinity),
        allow_slow=options.allow_slow,
    )


@hookimpl
def acrn_dm_hypervisor_types() -> Iterable[HypervisorType]:
    """Offer ``kvm``."""
    return [HypervisorType(name="kvm", summary="Linux KVM (/dev/kvm)", probe=probe, open=open_vm, check=check, rank=10)]


@hookimpl
def acrn_dm_vhm_ioeventfd(vm: Hypervisor, binding: IoEventFd, assign: bool) -> bool | None:
    """Bind kicks in KVM."""
    if not isinstance(vm, KvmVm):
        return None
    vm.ioeventfd(binding, assign)
    return True


@hookimpl
def acrn_dm_vhm_irqfd(vm: Hypervisor, binding: IrqFd, assign: bool) -> bool | None:
    """Bind calls in KVM."""
    if not isinstance(vm, KvmVm):
        return None
    vm.irqfd(binding, assign)
    return True
