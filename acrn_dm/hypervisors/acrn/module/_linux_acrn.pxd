"""The declarations of ``linux/acrn.h`` that are used: numbers and structures are the header's, at build time.

Members are listed only where they are read or written. The kernel calls bytes 8 to 23 of ``acrn_vm_creation`` a UUID;
since ACRN 3.0 they are the virtual machine's name, so ``guid_t`` is opaque here.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "linux/acrn.h" nogil:
    enum:
        ACRN_IO_REQUEST_MAX
        ACRN_IOREQ_STATE_PENDING
        ACRN_IOREQ_STATE_COMPLETE
        ACRN_IOREQ_STATE_PROCESSING
        ACRN_IOREQ_STATE_FREE
        ACRN_IOREQ_TYPE_PORTIO
        ACRN_IOREQ_TYPE_MMIO
        ACRN_IOREQ_TYPE_PCICFG
        ACRN_IOREQ_DIR_READ
        ACRN_IOREQ_DIR_WRITE
        ACRN_MEM_ACCESS_RWX
        ACRN_MEMMAP_RAM
        ACRN_IOEVENTFD_FLAG_PIO
        ACRN_IOEVENTFD_FLAG_DATAMATCH
        ACRN_IOEVENTFD_FLAG_DEASSIGN
        ACRN_IRQFD_FLAG_DEASSIGN
        ACRN_PMCMD_GET_PX_CNT
        ACRN_PMCMD_GET_PX_DATA
        ACRN_PMCMD_GET_CX_CNT
        ACRN_PMCMD_GET_CX_DATA

    const unsigned long ACRN_IOCTL_CREATE_VM, ACRN_IOCTL_DESTROY_VM, ACRN_IOCTL_START_VM, ACRN_IOCTL_PAUSE_VM
    const unsigned long ACRN_IOCTL_RESET_VM, ACRN_IOCTL_SET_VCPU_REGS, ACRN_IOCTL_INJECT_MSI
    const unsigned long ACRN_IOCTL_VM_INTR_MONITOR, ACRN_IOCTL_SET_IRQLINE, ACRN_IOCTL_NOTIFY_REQUEST_FINISH
    const unsigned long ACRN_IOCTL_CREATE_IOREQ_CLIENT, ACRN_IOCTL_ATTACH_IOREQ_CLIENT
    const unsigned long ACRN_IOCTL_DESTROY_IOREQ_CLIENT, ACRN_IOCTL_CLEAR_VM_IOREQ, ACRN_IOCTL_SET_MEMSEG
    const unsigned long ACRN_IOCTL_UNSET_MEMSEG, ACRN_IOCTL_PM_GET_CPU_STATE, ACRN_IOCTL_IOEVENTFD, ACRN_IOCTL_IRQFD

    ctypedef struct guid_t:
        pass

    struct acrn_mmio_request:
        uint32_t direction
        uint64_t address
        uint64_t size
        uint64_t value

    struct acrn_pio_request:
        uint32_t direction
        uint64_t address
        uint64_t size
        uint32_t value

    struct acrn_pci_request:
        uint32_t direction
        uint64_t size
        uint32_t value
        uint32_t bus
        uint32_t dev
        uint32_t func
        uint32_t reg

    union _reqs "acrn_dm_reqs":
        acrn_pio_request pio_request
        acrn_pci_request pci_request
        acrn_mmio_request mmio_request

    struct acrn_io_request:
        uint32_t type
        uint32_t completion_polling
        _reqs reqs
        uint32_t kernel_handled
        uint32_t processed

    struct acrn_io_request_buffer:
        acrn_io_request *req_slot

    struct acrn_ioreq_notify:
        uint16_t vmid
        uint32_t vcpu

    struct acrn_vm_creation:
        uint16_t vmid
        uint16_t vcpu_num
        guid_t uuid
        uint64_t vm_flag
        uint64_t ioreq_buf
        uint64_t cpu_affinity

    struct acrn_gp_regs:
        uint64_t rax
        uint64_t rbx
        uint64_t rsp
        uint64_t rsi

    struct acrn_descriptor_ptr:
        uint16_t limit
        uint64_t base

    struct acrn_regs:
        acrn_gp_regs gprs
        acrn_descriptor_ptr gdt
        acrn_descriptor_ptr idt
        uint64_t rip
        uint64_t cs_base
        uint64_t cr0
        uint64_t cr4
        uint64_t cr3
        uint64_t ia32_efer
        uint64_t rflags
        uint32_t cs_ar
        uint32_t cs_limit
        uint16_t cs_sel
        uint16_t ss_sel
        uint16_t ds_sel
        uint16_t es_sel
        uint16_t fs_sel
        uint16_t gs_sel

    struct acrn_vcpu_regs:
        uint16_t vcpu_id
        acrn_regs vcpu_regs

    struct acrn_vm_memmap:
        uint32_t type
        uint32_t attr
        uint64_t user_vm_pa
        uint64_t vma_base
        uint64_t len

    struct acrn_msi_entry:
        uint64_t msi_addr
        uint64_t msi_data

    struct acrn_acpi_generic_address:
        uint8_t space_id
        uint8_t bit_width
        uint8_t bit_offset
        uint8_t access_size
        uint64_t address

    struct acrn_cstate_data:
        acrn_acpi_generic_address cx_reg
        uint8_t type
        uint32_t latency
        uint64_t power

    struct acrn_pstate_data:
        uint64_t core_frequency
        uint64_t power
        uint64_t transition_latency
        uint64_t bus_master_latency
        uint64_t control
        uint64_t status

    struct acrn_ioeventfd:
        uint32_t fd
        uint32_t flags
        uint64_t addr
        uint32_t len
        uint64_t data

    struct acrn_irqfd:
        int32_t fd
        uint32_t flags
        acrn_msi_entry msi
