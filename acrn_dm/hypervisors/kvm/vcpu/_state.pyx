# cython: auto_pickle=False, autotestdict=False
"""The state of a vCPU at rest: CPUID, model-specific and general registers, its local APIC."""

from acrn_dm.base.errors import HostError
from acrn_dm.hypervisors.kvm.errors import failed

from acrn_dm.base._ioctl cimport DeviceFile, zeroed
from acrn_dm.hypervisors.kvm cimport _linux_kvm as kvm_h
from libc.stdint cimport uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset


# Local vector table of the local APIC (Intel SDM volume 3, 11.5.1): register offsets and delivery modes.
cdef enum:
    LVT_LINT0 = 0x350
    LVT_LINT1 = 0x360
    LVT_DELIVERY_NMI = 4 << 8
    LVT_DELIVERY_EXTINT = 7 << 8


cdef class VcpuState(DeviceFile):
    """A vCPU's file, as far as its state goes. Only while no thread runs it."""

    def __cinit__(self):
        self.failed = failed

    def tsc_khz(self):
        """Return the frequency of the guest's time stamp counter in kHz."""
        return self.call_value("KVM_GET_TSC_KHZ", kvm_h.KVM_GET_TSC_KHZ, 0)

    def set_cpuid(self, entries):
        """Set the CPUID leaves, as ``Kvm.supported_cpuid`` gives them."""
        cdef size_t i
        cdef kvm_h.kvm_cpuid_entry2 *e
        cdef kvm_h.kvm_cpuid2 *cpuid = <kvm_h.kvm_cpuid2 *>zeroed(
            sizeof(kvm_h.kvm_cpuid2) + len(entries) * sizeof(kvm_h.kvm_cpuid_entry2))
        try:
            cpuid.nent = len(entries)
            for i, entry in enumerate(entries):
                e = &cpuid.entries[i]
                e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx = entry
            self.call("KVM_SET_CPUID2", kvm_h.KVM_SET_CPUID2, cpuid)
        finally:
            free(cpuid)

    def set_msrs(self, msrs):
        """Set model-specific registers, a sequence of (index, value)."""
        cdef size_t i
        cdef int done
        cdef kvm_h.kvm_msrs *table = <kvm_h.kvm_msrs *>zeroed(
            sizeof(kvm_h.kvm_msrs) + len(msrs) * sizeof(kvm_h.kvm_msr_entry))
        try:
            table.nmsrs = len(msrs)
            for i, (index, value) in enumerate(msrs):
                table.entries[i].index = index
                table.entries[i].data = value
            done = self.call("KVM_SET_MSRS", kvm_h.KVM_SET_MSRS, table)
        finally:
            free(table)
        if done < len(msrs):
            raise HostError(f"KVM_SET_MSRS: the host refuses MSR {msrs[done][0]:#x}")

    def wire_lint(self):
        """Connect LINT0 to the PICs and LINT1 to NMI, as firmware leaves a local APIC (MP specification 1.4, 3.6.2)."""
        cdef kvm_h.kvm_lapic_state lapic
        cdef uint32_t lint0 = LVT_DELIVERY_EXTINT
        cdef uint32_t lint1 = LVT_DELIVERY_NMI
        self.call("KVM_GET_LAPIC", kvm_h.KVM_GET_LAPIC, &lapic)
        memcpy(lapic.regs + LVT_LINT0, &lint0, sizeof(lint0))
        memcpy(lapic.regs + LVT_LINT1, &lint1, sizeof(lint1))
        self.call("KVM_SET_LAPIC", kvm_h.KVM_SET_LAPIC, &lapic)

    def set_boot_registers(self, r):
        """Set the entry state; *r* is a ``BootRegisters``. The IDT, TR and LDT stay as after power-on."""
        cdef kvm_h.kvm_sregs sregs
        cdef kvm_h.kvm_regs regs
        self.call("KVM_GET_SREGS", kvm_h.KVM_GET_SREGS, &sregs)
        _segment(&sregs.cs, r.code)
        _segment(&sregs.ds, r.data)
        sregs.es = sregs.ds
        sregs.fs = sregs.ds
        sregs.gs = sregs.ds
        sregs.ss = sregs.ds
        sregs.gdt.base = r.gdt_base
        sregs.gdt.limit = r.gdt_limit
        sregs.cr0 = r.cr0
        sregs.cr3 = r.cr3
        sregs.cr4 = r.cr4
        sregs.efer = r.efer
        self.call("KVM_SET_SREGS", kvm_h.KVM_SET_SREGS, &sregs)
        memset(&regs, 0, sizeof(regs))
        regs.rip = r.rip
        regs.rax = r.rax
        regs.rbx = r.rbx
        regs.rsi = r.rsi
        regs.rsp = r.rsp
        regs.rflags = 2  # bit 1 is always set
        self.call("KVM_SET_REGS", kvm_h.KVM_SET_REGS, &regs)

    def registers(self):
        """Return general registers by name; only while no thread is in ``run``."""
        cdef kvm_h.kvm_regs r
        self.call("KVM_GET_REGS", kvm_h.KVM_GET_REGS, &r)
        return {"rax": r.rax, "rbx": r.rbx, "rcx": r.rcx, "rdx": r.rdx, "rsi": r.rsi, "rdi": r.rdi,
                "rsp": r.rsp, "rip": r.rip, "rflags": r.rflags}

    def was_paused(self):
        """Let the guest's clock say that it stood still, so that its watchdogs take no lock-up for real."""
        # EINVAL where the guest uses no kvmclock, or not yet: nobody to tell.
        self.attempt_short(kvm_h.KVM_KVMCLOCK_CTRL, NULL)


cdef int _segment(kvm_h.kvm_segment *out, segment) except -1:
    """From the access-rights word of the VMX guest state (Intel SDM volume 3, 25.4.1)."""
    cdef uint32_t access = segment.access
    memset(out, 0, sizeof(out[0]))
    out.base = segment.base
    out.limit = segment.limit
    out.selector = segment.selector
    out.type = access & 0xF
    out.s = (access >> 4) & 1
    out.dpl = (access >> 5) & 3
    out.present = (access >> 7) & 1
    out.avl = (access >> 12) & 1
    out.long_mode = (access >> 13) & 1
    out.db = (access >> 14) & 1
    out.g = (access >> 15) & 1
    out.unusable = (access >> 16) & 1
    return 0
