"""The vCPUs of a virtual machine and the threads that run them.

A vCPU's thread lives from ``start`` to the next ``join``: a vCPU at rest is a thread that has been joined.
"""

import logging
import os
import threading
from collections.abc import Callable

import attrs

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.records import define
from acrn_dm.contract.hypervisor import Dispatch, VmEvent
from acrn_dm.hypervisors.kvm import host_cpus
from acrn_dm.hypervisors.kvm.cpuid import CpuidLeaf, Topology, guest_cpuid
from acrn_dm.hypervisors.kvm.module._system import CAP_MAX_VCPUS, CAP_TSC_DEADLINE_TIMER, Kvm
from acrn_dm.hypervisors.kvm.module._vm import Vm
from acrn_dm.hypervisors.kvm.vcpu._vcpu import Vcpu

log = logging.getLogger(__name__)

MAX_APIC_ID = 254  # 255 is broadcast; more needs x2APIC destinations in MSIs
# What firmware leaves: fast string instructions, and memory write-back unless the guest says otherwise (Intel SDM 4).
FIRMWARE_MSRS = ((0x1A0, 1), (0x2FF, 1 << 11 | 6))  # IA32_MISC_ENABLE: fast strings; IA32_MTRR_DEF_TYPE: enabled, WB


def checked_apic_ids(kvm: Kvm, vcpus: int, apic_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Check the number of vCPUs and their APIC ids; without ids they are 0, 1, 2 and so on. Raises ConfigError."""
    most = min(kvm.check_extension(CAP_MAX_VCPUS), MAX_APIC_ID + 1)
    if not 1 <= vcpus <= most:
        raise ConfigError(f"this host's KVM allows 1 to {most} vCPUs", option="vcpus", value=vcpus)
    ids = apic_ids or tuple(range(vcpus))
    if len(ids) != vcpus or len(set(ids)) != vcpus or not all(0 <= i <= MAX_APIC_ID for i in ids):
        raise ConfigError(f"needs {vcpus} different APIC ids, 0 to {MAX_APIC_ID}", option="apic_ids", value=ids)
    return ids


@define(eq=False)
class Vcpus:
    """The vCPUs, in order; made anew by each ``create``. Not locked: the owner is. ``is_current`` is for any thread."""

    pins: tuple[int, ...]  # the host CPU of each vCPU; empty: wherever the scheduler puts it
    _vcpus: list[Vcpu] = attrs.field(factory=list, init=False)
    _ended: set[Vcpu] = attrs.field(factory=set, init=False)  # those that reported a VmEvent
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False)

    def create(self, system: Kvm, vm: Vm, apic_ids: tuple[int, ...]) -> None:
        """Create one vCPU for each of *apic_ids* as firmware leaves them; the first one boots. Raises HostError."""
        supported = [
            CpuidLeaf(function=f, index=i, flags=flags, eax=a, ebx=b, ecx=c, edx=d)
            for f, i, flags, a, b, c, d in system.supported_cpuid()
        ]
        deadline = bool(system.check_extension(CAP_TSC_DEADLINE_TIMER))
        if apic_ids[0] != 0:
            vm.set_boot_cpu(apic_ids[0])
        for apic_id in apic_ids:
            vcpu = vm.create_vcpu(apic_id)
            self._vcpus.append(vcpu)
            place = Topology(apic_id=apic_id, apic_ids=apic_ids, tsc_deadline=deadline, tsc_khz=vcpu.tsc_khz())
            vcpu.set_cpuid([attrs.astuple(leaf) for leaf in guest_cpuid(supported, place)])
            vcpu.set_msrs(FIRMWARE_MSRS)
            vcpu.wire_lint()

    def close(self) -> None:
        """Give them all back; no thread runs one."""
        for vcpu in self._vcpus:
            vcpu.close()
        self._vcpus.clear()
        self._ended.clear()

    def __getitem__(self, number: int) -> Vcpu:
        return self._vcpus[number]

    @property
    def is_current(self) -> bool:
        """Whether the calling thread runs one of them."""
        return threading.current_thread() in self._threads

    def was_paused(self) -> None:
        """Tell each guest clock that it stood still."""
        for vcpu in self._vcpus:
            vcpu.was_paused()

    def start(self, dispatch: Dispatch, mend: Callable[[], bool]) -> None:
        """Start a thread for each vCPU that has not ended. Raises HostError; then none runs.

        *mend* is asked on these threads when the host has failed an access to guest memory: whether it can be repeated.
        """
        for i, vcpu in enumerate(self._vcpus):
            if vcpu in self._ended:
                continue
            vcpu.arm()
            pin = self.pins[i] if self.pins else None
            thread = threading.Thread(target=self._run, args=(vcpu, pin, dispatch, mend), name=f"vcpu {i}", daemon=True)
            self._threads.append(thread)  # first: the thread may ask at once whether it is one of them
            try:
                thread.start()
            except RuntimeError as e:
                self._threads.pop()
                self.join()
                raise HostError(f"starting the thread of vCPU {i}: {e}", hint="raise the limit of processes") from e

    def join(self) -> None:
        """Bring every vCPU to rest at an instruction boundary; when this returns none is in its dispatch."""
        for vcpu in self._vcpus:
            vcpu.request_exit()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _run(self, vcpu: Vcpu, pin: int | None, dispatch: Dispatch, mend: Callable[[], bool]) -> None:
        if pin is not None:
            _pin_this_thread(pin)
        try:
            ended = vcpu.run(dispatch, mend)
        except Exception as e:
            log.exception("an access of the guest failed")
            ended = ("INTERNAL_ERROR", f"an access of the guest failed: {e!r}")
        if ended is None:
            return
        self._ended.add(vcpu)
        event, detail = ended
        try:
            dispatch.vm_event(VmEvent[event], detail)
        except Exception:
            log.exception("nobody took the event %s: %s", event, detail)


def _pin_this_thread(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as e:  # it was possible when the machine was opened: the CPU has gone offline since
        log.warning("%s: a vCPU can't be pinned to CPU %d: %s", host_cpus.OPTION, cpu, e.strerror)
