# cython: auto_pickle=False, autotestdict=False
"""``/dev/kvm``: what the host can do, and the making of virtual machines.

Every number and structure comes from ``linux/kvm.h`` at build time; what each call means is in the kernel's
Documentation/virt/kvm/api.rst, by name. Policy (routing, CPUID, life cycle) is not here.
"""

from acrn_dm.base.errors import HostError
from acrn_dm.hypervisors.kvm.errors import failed

from acrn_dm.base._ioctl cimport DeviceFile, zeroed
from acrn_dm.hypervisors.kvm cimport _linux_kvm as kvm_h
from acrn_dm.hypervisors.kvm.module._vm cimport Vm
from libc.errno cimport E2BIG
from libc.stdint cimport uint32_t
from libc.stdlib cimport free


CPUID_INDEXED = kvm_h.KVM_CPUID_FLAG_SIGNIFCANT_INDEX  # the header's spelling
CAP_IRQ_ROUTING = kvm_h.KVM_CAP_IRQ_ROUTING
CAP_MAX_VCPUS = kvm_h.KVM_CAP_MAX_VCPUS
CAP_TSC_DEADLINE_TIMER = kvm_h.KVM_CAP_TSC_DEADLINE_TIMER
REQUIRED_CAPS = {
    "KVM_CAP_IRQCHIP": kvm_h.KVM_CAP_IRQCHIP,
    "KVM_CAP_USER_MEMORY": kvm_h.KVM_CAP_USER_MEMORY,
    "KVM_CAP_SET_TSS_ADDR": kvm_h.KVM_CAP_SET_TSS_ADDR,
    "KVM_CAP_SET_IDENTITY_MAP_ADDR": kvm_h.KVM_CAP_SET_IDENTITY_MAP_ADDR,
    "KVM_CAP_EXT_CPUID": kvm_h.KVM_CAP_EXT_CPUID,
    "KVM_CAP_PIT2": kvm_h.KVM_CAP_PIT2,
    "KVM_CAP_IRQ_ROUTING": kvm_h.KVM_CAP_IRQ_ROUTING,
    "KVM_CAP_IRQFD": kvm_h.KVM_CAP_IRQFD,
    "KVM_CAP_IRQFD_RESAMPLE": kvm_h.KVM_CAP_IRQFD_RESAMPLE,
    "KVM_CAP_IOEVENTFD": kvm_h.KVM_CAP_IOEVENTFD,
    "KVM_CAP_SIGNAL_MSI": kvm_h.KVM_CAP_SIGNAL_MSI,
    "KVM_CAP_IMMEDIATE_EXIT": kvm_h.KVM_CAP_IMMEDIATE_EXIT,
}


cdef class Kvm(DeviceFile):
    """``/dev/kvm``: what the host can do, and the making of virtual machines."""

    def __cinit__(self):
        self.failed = failed
        self.open_path("/dev/kvm")
        version = self.call_value("KVM_GET_API_VERSION", kvm_h.KVM_GET_API_VERSION, 0)
        if version != kvm_h.KVM_API_VERSION:
            raise HostError(f"KVM_GET_API_VERSION: {version}, expected {kvm_h.KVM_API_VERSION}")
        for name, cap in REQUIRED_CAPS.items():
            if not self.check_extension(cap):
                raise HostError(f"KVM_CHECK_EXTENSION: no {name}", hint="a newer kernel is needed (4.12 or later)")

    def check_extension(self, int cap):
        """Return the value of a capability, 0 if it is absent."""
        return self.call_value("KVM_CHECK_EXTENSION", kvm_h.KVM_CHECK_EXTENSION, cap)

    def supported_cpuid(self):
        """Return (function, index, flags, eax, ebx, ecx, edx) for each CPUID leaf KVM and the host offer."""
        cdef uint32_t room = 128
        cdef kvm_h.kvm_cpuid2 *cpuid
        cdef int result
        while True:
            cpuid = <kvm_h.kvm_cpuid2 *>zeroed(sizeof(kvm_h.kvm_cpuid2) + room * sizeof(kvm_h.kvm_cpuid_entry2))
            try:
                cpuid.nent = room
                result = self.attempt_short(kvm_h.KVM_GET_SUPPORTED_CPUID, cpuid)
                if result == 0:
                    return [_cpuid_tuple(&cpuid.entries[i]) for i in range(cpuid.nent)]
                if result != -E2BIG or room > 4096:
                    raise failed("KVM_GET_SUPPORTED_CPUID", -result)
            finally:
                free(cpuid)
            room *= 2

    def create_vm(self):
        """Return a new, empty virtual machine."""
        cdef Vm vm = Vm.__new__(Vm)
        vm._vcpu_mmap_size = self.call_value("KVM_GET_VCPU_MMAP_SIZE", kvm_h.KVM_GET_VCPU_MMAP_SIZE, 0)
        # A signal may interrupt the set-up of the MMU notifier: the call is made again.
        vm.fd = self.call_value("KVM_CREATE_VM", kvm_h.KVM_CREATE_VM, 0)
        return vm


cdef tuple _cpuid_tuple(kvm_h.kvm_cpuid_entry2 *e):
    return (e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx)
