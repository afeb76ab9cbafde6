# cython: auto_pickle=False, autotestdict=False
"""ACRN's kernel module by its ioctls: a device file, the numbers of the calls, and their structures as bytes.

Every number and structure of Linux comes from ``linux/acrn.h`` at build time. What only ACRN's own kernel has
(asynchronous kicks, virtual machine events) is declared here, once. Policy is not here: see ``hsm``.
"""

from acrn_dm.hypervisors.acrn.module.errors import failed

from acrn_dm.base._ioctl cimport DeviceFile
from acrn_dm.hypervisors.acrn.module cimport _linux_acrn as acrn
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset


cdef extern from *:
    """
    #include <linux/acrn.h>
    #include <linux/ioctl.h>

    /* ACRN's additions to the kernel's header: hypervisor/include/public/acrn_common.h, devicemodel/include/public. */
    #define ACRN_DM_SETUP_ASYNCIO _IOW(ACRN_IOCTL_TYPE, 0x90, __u64)
    #define ACRN_DM_SETUP_VM_EVENT_RING _IOW(ACRN_IOCTL_TYPE, 0xa0, __u64)
    #define ACRN_DM_SETUP_VM_EVENT_FD _IOW(ACRN_IOCTL_TYPE, 0xa1, int)
    #define ACRN_DM_IOREQ_TYPE_WP 3
    #define ACRN_DM_IOEVENTFD_FLAG_ASYNCIO 0x08

    struct acrn_dm_shared_buf {
        __u64 magic;
        __u32 ele_num, ele_size, head, tail, flags, reserved, overrun_cnt, size;
        __u32 padding[6];
    };
    struct acrn_dm_vm_event { __u32 type; __u8 data[28]; };
    struct acrn_dm_intr_monitor { __u32 cmd, buf_cnt; __u64 buffer[48]; };

    _Static_assert(sizeof(struct acrn_dm_shared_buf) == 64, "shared_buf");
    _Static_assert(sizeof(struct acrn_dm_vm_event) == 32, "vm_event");
    _Static_assert(sizeof(struct acrn_dm_intr_monitor) == 392, "acrn_intr_monitor");
    """
    const unsigned long ACRN_DM_SETUP_ASYNCIO, ACRN_DM_SETUP_VM_EVENT_RING, ACRN_DM_SETUP_VM_EVENT_FD
    enum:
        ACRN_DM_IOREQ_TYPE_WP
        ACRN_DM_IOEVENTFD_FLAG_ASYNCIO


REQUESTS = {
    "CREATE_VM": acrn.ACRN_IOCTL_CREATE_VM,
    "DESTROY_VM": acrn.ACRN_IOCTL_DESTROY_VM,
    "START_VM": acrn.ACRN_IOCTL_START_VM,
    "PAUSE_VM": acrn.ACRN_IOCTL_PAUSE_VM,
    "RESET_VM": acrn.ACRN_IOCTL_RESET_VM,
    "SET_VCPU_REGS": acrn.ACRN_IOCTL_SET_VCPU_REGS,
    "INJECT_MSI": acrn.ACRN_IOCTL_INJECT_MSI,
    "VM_INTR_MONITOR": acrn.ACRN_IOCTL_VM_INTR_MONITOR,
    "SET_IRQLINE": acrn.ACRN_IOCTL_SET_IRQLINE,
    "NOTIFY_REQUEST_FINISH": acrn.ACRN_IOCTL_NOTIFY_REQUEST_FINISH,
    "CREATE_IOREQ_CLIENT": acrn.ACRN_IOCTL_CREATE_IOREQ_CLIENT,
    "ATTACH_IOREQ_CLIENT": acrn.ACRN_IOCTL_ATTACH_IOREQ_CLIENT,
    "DESTROY_IOREQ_CLIENT": acrn.ACRN_IOCTL_DESTROY_IOREQ_CLIENT,
    "CLEAR_VM_IOREQ": acrn.ACRN_IOCTL_CLEAR_VM_IOREQ,
    "SET_MEMSEG": acrn.ACRN_IOCTL_SET_MEMSEG,
    "PM_GET_CPU_STATE": acrn.ACRN_IOCTL_PM_GET_CPU_STATE,
    "IOEVENTFD": acrn.ACRN_IOCTL_IOEVENTFD,
    "IRQFD": acrn.ACRN_IOCTL_IRQFD,
    "SETUP_ASYNCIO": ACRN_DM_SETUP_ASYNCIO,
    "SETUP_VM_EVENT_RING": ACRN_DM_SETUP_VM_EVENT_RING,
    "SETUP_VM_EVENT_FD": ACRN_DM_SETUP_VM_EVENT_FD,
}

MAX_VCPUS = acrn.ACRN_IO_REQUEST_MAX
PIO = acrn.ACRN_IOREQ_TYPE_PORTIO
MMIO = acrn.ACRN_IOREQ_TYPE_MMIO
PCI_CONFIG = acrn.ACRN_IOREQ_TYPE_PCICFG
WRITE_PROTECTED = ACRN_DM_IOREQ_TYPE_WP
IOEVENTFD_PIO = acrn.ACRN_IOEVENTFD_FLAG_PIO
IOEVENTFD_DATAMATCH = acrn.ACRN_IOEVENTFD_FLAG_DATAMATCH
IOEVENTFD_DEASSIGN = acrn.ACRN_IOEVENTFD_FLAG_DEASSIGN
IOEVENTFD_ASYNCIO = ACRN_DM_IOEVENTFD_FLAG_ASYNCIO
GET_PX_COUNT = acrn.ACRN_PMCMD_GET_PX_CNT
GET_PX_DATA = acrn.ACRN_PMCMD_GET_PX_DATA
GET_CX_COUNT = acrn.ACRN_PMCMD_GET_CX_CNT
GET_CX_DATA = acrn.ACRN_PMCMD_GET_CX_DATA
PX_DATA_SIZE = sizeof(acrn.acrn_pstate_data)
CX_DATA_SIZE = sizeof(acrn.acrn_cstate_data)


cdef class Device(DeviceFile):
    """The open device file, one virtual machine each. Raises HostError when it can't be opened."""

    def __cinit__(self, path):
        self.failed = failed
        self.open_path(str(path))

    def close(self):
        """Close it; idempotent. The kernel destroys a virtual machine that is left. No call may be under way."""
        DeviceFile.close(self)

    def ioctl(self, unsigned long request, argument, bint may_sleep=True):
        """Return the result, or minus errno. *argument* is a number passed by value, or a bytearray read and written.

        Calls that *may_sleep* release the GIL; short ones keep it: to get it back takes longer than they do.
        """
        cdef void *value
        cdef uint8_t[::1] buffer
        if isinstance(argument, int):
            value = <void *><uintptr_t>argument
        else:
            buffer = argument
            value = &buffer[0]
        return self.attempt(request, value) if may_sleep else self.attempt_short(request, value)


cdef bytearray _bytes(const void *data, size_t size):
    return bytearray((<const char *>data)[:size])


def vm_creation(bytes identity, uint64_t flags, uint64_t request_page, uint64_t cpu_affinity):
    """Encode ``acrn_vm_creation``; *identity* are up to 16 bytes: the name, or in older versions the UUID."""
    cdef acrn.acrn_vm_creation creation
    memset(&creation, 0, sizeof(creation))
    if len(identity) > <Py_ssize_t>sizeof(creation.uuid):
        raise ValueError(f"{identity!r} is longer than {sizeof(creation.uuid)} bytes")
    memcpy(&creation.uuid, <const char *>identity, len(identity))
    creation.vm_flag = flags
    creation.ioreq_buf = request_page
    creation.cpu_affinity = cpu_affinity
    return _bytes(&creation, sizeof(creation))


def created_vm(uint8_t[::1] answer):
    """Return (vmid, number of vCPUs) from what CREATE_VM left."""
    cdef acrn.acrn_vm_creation creation
    if len(answer) != <Py_ssize_t>sizeof(creation):
        raise ValueError("no acrn_vm_creation")
    memcpy(&creation, &answer[0], sizeof(creation))
    return creation.vmid, creation.vcpu_num


def vcpu_regs(int vcpu, r):
    """Encode ``acrn_vcpu_regs``; *r* is a ``BootRegisters``.

    Only selectors of data segments go over: the hypervisor makes their hidden parts, flat in protected mode. In real
    mode the interrupt table is where a processor has it after reset.
    """
    cdef acrn.acrn_vcpu_regs regs
    cdef acrn.acrn_regs *state = &regs.vcpu_regs
    memset(&regs, 0, sizeof(regs))
    regs.vcpu_id = vcpu
    state.gprs.rax = r.rax
    state.gprs.rbx = r.rbx
    state.gprs.rsp = r.rsp
    state.gprs.rsi = r.rsi
    state.gdt.limit = r.gdt_limit
    state.gdt.base = r.gdt_base
    state.idt.limit = 0 if r.cr0 & 1 else 0xFFFF
    state.rip = r.rip
    state.cr0 = r.cr0
    state.cr3 = r.cr3
    state.cr4 = r.cr4
    state.ia32_efer = r.efer
    state.cs_base = r.code.base
    state.cs_ar = r.code.access
    state.cs_limit = r.code.limit
    state.cs_sel = r.code.selector
    state.ss_sel = state.ds_sel = state.es_sel = state.fs_sel = state.gs_sel = r.data.selector
    return _bytes(&regs, sizeof(regs))


def ram(uint64_t gpa, uint64_t hva, uint64_t size):
    """Encode ``acrn_vm_memmap`` for RAM; the kernel adds the memory type."""
    cdef acrn.acrn_vm_memmap segment
    memset(&segment, 0, sizeof(segment))
    segment.type = acrn.ACRN_MEMMAP_RAM
    segment.attr = acrn.ACRN_MEM_ACCESS_RWX
    segment.user_vm_pa = gpa
    segment.vma_base = hva
    segment.len = size
    return _bytes(&segment, sizeof(segment))


def msi_entry(uint64_t addr, uint64_t data):
    """Encode ``acrn_msi_entry``."""
    cdef acrn.acrn_msi_entry msi
    msi.msi_addr = addr
    msi.msi_data = data
    return _bytes(&msi, sizeof(msi))


def ioreq_notify(int vmid, uint32_t vcpu):
    """Encode ``acrn_ioreq_notify``."""
    cdef acrn.acrn_ioreq_notify notify
    memset(&notify, 0, sizeof(notify))
    notify.vmid = vmid
    notify.vcpu = vcpu
    return _bytes(&notify, sizeof(notify))


def ioeventfd(int fd, uint32_t flags, uint64_t addr, uint32_t length, uint64_t data):
    """Encode ``acrn_ioeventfd``."""
    cdef acrn.acrn_ioeventfd binding
    memset(&binding, 0, sizeof(binding))
    binding.fd = fd
    binding.flags = flags
    binding.addr = addr
    binding.len = length
    binding.data = data
    return _bytes(&binding, sizeof(binding))


def irqfd(int fd, uint64_t addr, uint64_t data, bint assign):
    """Encode ``acrn_irqfd``."""
    cdef acrn.acrn_irqfd binding
    memset(&binding, 0, sizeof(binding))
    binding.fd = fd
    binding.flags = 0 if assign else acrn.ACRN_IRQFD_FLAG_DEASSIGN
    binding.msi.msi_addr = addr
    binding.msi.msi_data = data
    return _bytes(&binding, sizeof(binding))


def pstate(uint8_t[::1] answer):
    """Decode ``acrn_pstate_data``: frequency in MHz, power in mW, two latencies in us, control, status."""
    cdef acrn.acrn_pstate_data data
    if len(answer) < <Py_ssize_t>sizeof(data):
        raise ValueError("no acrn_pstate_data")
    memcpy(&data, &answer[0], sizeof(data))
    return (data.core_frequency, data.power, data.transition_latency, data.bus_master_latency,
            data.control, data.status)


def cstate(uint8_t[::1] answer):
    """Decode ``acrn_cstate_data``: the register (space, width, offset, access size, address), type, latency, power."""
    cdef acrn.acrn_cstate_data data
    if len(answer) < <Py_ssize_t>sizeof(data):
        raise ValueError("no acrn_cstate_data")
    memcpy(&data, &answer[0], sizeof(data))
    register = (data.cx_reg.space_id, data.cx_reg.bit_width, data.cx_reg.bit_offset, data.cx_reg.access_size,
                data.cx_reg.address)
    return register, data.type, data.latency, data.power
