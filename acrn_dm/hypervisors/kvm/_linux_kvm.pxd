"""The declarations of ``linux/kvm.h`` that are used: numbers and structures are the header's, at build time.

Members are listed only where they are read or written. The header's anonymous structures and unions get names here that
are never emitted in C: only ``a.b.c`` is.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "linux/kvm.h" nogil:
    enum:
        KVM_API_VERSION
        KVM_EXIT_IO_OUT
        KVM_IOEVENTFD_FLAG_DATAMATCH
        KVM_IOEVENTFD_FLAG_PIO
        KVM_IOEVENTFD_FLAG_DEASSIGN
        KVM_IRQFD_FLAG_DEASSIGN
        KVM_IRQFD_FLAG_RESAMPLE
        KVM_PIT_SPEAKER_DUMMY
        KVM_IRQ_ROUTING_IRQCHIP
        KVM_IRQ_ROUTING_MSI
        KVM_INTERNAL_ERROR_EMULATION
        KVM_EXIT_HLT
        KVM_EXIT_IO
        KVM_EXIT_MMIO
        KVM_EXIT_SHUTDOWN
        KVM_EXIT_FAIL_ENTRY
        KVM_EXIT_INTERNAL_ERROR
        KVM_EXIT_SYSTEM_EVENT
        KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        KVM_IRQCHIP_PIC_MASTER
        KVM_IRQCHIP_PIC_SLAVE
        KVM_IRQCHIP_IOAPIC
        KVM_CAP_IRQCHIP
        KVM_CAP_USER_MEMORY
        KVM_CAP_SET_TSS_ADDR
        KVM_CAP_SET_IDENTITY_MAP_ADDR
        KVM_CAP_EXT_CPUID
        KVM_CAP_PIT2
        KVM_CAP_IRQ_ROUTING
        KVM_CAP_IRQFD
        KVM_CAP_IRQFD_RESAMPLE
        KVM_CAP_IOEVENTFD
        KVM_CAP_SIGNAL_MSI
        KVM_CAP_IMMEDIATE_EXIT
        KVM_CAP_MAX_VCPUS
        KVM_CAP_MAX_VCPU_ID
        KVM_CAP_TSC_DEADLINE_TIMER

    const unsigned long KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_CHECK_EXTENSION, KVM_GET_VCPU_MMAP_SIZE
    const unsigned long KVM_GET_SUPPORTED_CPUID, KVM_CREATE_VCPU, KVM_SET_BOOT_CPU_ID, KVM_SET_TSS_ADDR
    const unsigned long KVM_SET_IDENTITY_MAP_ADDR, KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2, KVM_SET_USER_MEMORY_REGION
    const unsigned long KVM_SIGNAL_MSI, KVM_IRQ_LINE, KVM_IOEVENTFD, KVM_IRQFD, KVM_SET_GSI_ROUTING
    const unsigned long KVM_RUN, KVM_SET_CPUID2, KVM_SET_MSRS, KVM_GET_TSC_KHZ, KVM_KVMCLOCK_CTRL
    const unsigned long KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS, KVM_GET_LAPIC, KVM_SET_LAPIC

    struct kvm_userspace_memory_region:
        uint32_t slot
        uint32_t flags
        uint64_t guest_phys_addr
        uint64_t memory_size
        uint64_t userspace_addr

    struct kvm_msi:
        uint32_t address_lo
        uint32_t address_hi
        uint32_t data

    struct kvm_irq_level:
        uint32_t irq
        uint32_t level

    struct kvm_pit_config:
        uint32_t flags

    struct kvm_ioeventfd:
        uint64_t datamatch
        uint64_t addr
        uint32_t len
        int fd
        uint32_t flags

    struct kvm_irqfd:
        uint32_t fd
        uint32_t gsi
        uint32_t flags
        uint32_t resamplefd

    struct _routing_irqchip "never emitted":
        uint32_t irqchip
        uint32_t pin
    struct _routing_msi "never emitted":
        uint32_t address_lo
        uint32_t address_hi
        uint32_t data
    union _routing_target "never emitted":
        _routing_irqchip irqchip
        _routing_msi msi
    struct kvm_irq_routing_entry:
        uint32_t gsi
        uint32_t type
        _routing_target u
    struct kvm_irq_routing:
        uint32_t nr
        kvm_irq_routing_entry *entries

    struct kvm_cpuid_entry2:
        uint32_t function
        uint32_t index
        uint32_t flags
        uint32_t eax
        uint32_t ebx
        uint32_t ecx
        uint32_t edx
    struct kvm_cpuid2:
        uint32_t nent
        kvm_cpuid_entry2 *entries

    struct kvm_msr_entry:
        uint32_t index
        uint64_t data
    struct kvm_msrs:
        uint32_t nmsrs
        kvm_msr_entry *entries

    struct kvm_segment:
        uint64_t base
        uint32_t limit
        uint16_t selector
        uint8_t type
        uint8_t present
        uint8_t dpl
        uint8_t db
        uint8_t s
        uint8_t long_mode "l"
        uint8_t g
        uint8_t avl
        uint8_t unusable
    struct kvm_dtable:
        uint64_t base
        uint16_t limit
    struct kvm_sregs:
        kvm_segment cs
        kvm_segment ds
        kvm_segment es
        kvm_segment fs
        kvm_segment gs
        kvm_segment ss
        kvm_dtable gdt
        uint64_t cr0
        uint64_t cr3
        uint64_t cr4
        uint64_t efer
    struct kvm_regs:
        uint64_t rax
        uint64_t rbx
        uint64_t rcx
        uint64_t rdx
        uint64_t rsi
        uint64_t rdi
        uint64_t rsp
        uint64_t rip
        uint64_t rflags
    struct kvm_lapic_state:
        char *regs

    struct _exit_io "never emitted":
        uint8_t direction
        uint8_t size
        uint16_t port
        uint32_t count
        uint64_t data_offset
    struct _exit_mmio "never emitted":
        uint64_t phys_addr
        uint8_t *data
        uint32_t len
        uint8_t is_write
    struct _exit_fail_entry "never emitted":
        uint64_t hardware_entry_failure_reason
    struct _exit_internal "never emitted":
        uint32_t suberror
        uint32_t ndata
        uint64_t *data
    struct _exit_system_event "never emitted":
        uint32_t type
    struct kvm_run:
        uint8_t immediate_exit
        uint32_t exit_reason
        _exit_io io
        _exit_mmio mmio
        _exit_fail_entry fail_entry
        _exit_internal internal
        _exit_system_event system_event
