# cython: auto_pickle=False, autotestdict=False
"""A virtual machine's file: its memory, its interrupt controllers and timer, and the eventfds bound to it."""

from acrn_dm.hypervisors.kvm.errors import failed

from acrn_dm.base._ioctl cimport DeviceFile, zeroed
from acrn_dm.hypervisors.kvm cimport _linux_kvm as kvm_h
from acrn_dm.hypervisors.kvm.vcpu._vcpu cimport Vcpu
from libc.errno cimport EPERM
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset


CHIP_PIC_MASTER = kvm_h.KVM_IRQCHIP_PIC_MASTER
CHIP_PIC_SLAVE = kvm_h.KVM_IRQCHIP_PIC_SLAVE
CHIP_IOAPIC = kvm_h.KVM_IRQCHIP_IOAPIC


cdef class Vm(DeviceFile):
    """One virtual machine. Made by ``Kvm.create_vm``."""

    def __cinit__(self):
        self.failed = failed

    def set_low_pages(self, uint64_t identity_map, unsigned long tss):
        """Place the one identity-map page and the three TSS pages that KVM needs on Intel hosts."""
        self.call("KVM_SET_IDENTITY_MAP_ADDR", kvm_h.KVM_SET_IDENTITY_MAP_ADDR, &identity_map)
        self.call_value("KVM_SET_TSS_ADDR", kvm_h.KVM_SET_TSS_ADDR, tss)

    def create_irqchip(self):
        """Create both PICs, the IOAPIC and, with each later vCPU, its local APIC."""
        self.call_value("KVM_CREATE_IRQCHIP", kvm_h.KVM_CREATE_IRQCHIP, 0)

    def create_pit(self):
        """Create the timer, which also answers port 0x61: guests calibrate their TSC with its gate."""
        cdef kvm_h.kvm_pit_config config
        memset(&config, 0, sizeof(config))
        config.flags = kvm_h.KVM_PIT_SPEAKER_DUMMY
        self.call("KVM_CREATE_PIT2", kvm_h.KVM_CREATE_PIT2, &config)

    def set_boot_cpu(self, unsigned long apic_id):
        """Choose the boot processor; before any vCPU is created."""
        self.call_value("KVM_SET_BOOT_CPU_ID", kvm_h.KVM_SET_BOOT_CPU_ID, apic_id)

    def create_vcpu(self, unsigned long apic_id):
        """Create a vCPU."""
        cdef Vcpu vcpu = Vcpu.__new__(Vcpu)
        vcpu.apic_id = apic_id
        vcpu.fd = self.call_value("KVM_CREATE_VCPU", kvm_h.KVM_CREATE_VCPU, apic_id)
        vcpu.map(self._vcpu_mmap_size)
        return vcpu

    def set_memory(self, uint32_t slot, uint64_t gpa, uint64_t size, uint64_t hva):
        """Back [gpa, gpa + size) by our memory at *hva*; size 0 deletes the slot."""
        cdef kvm_h.kvm_userspace_memory_region region
        memset(&region, 0, sizeof(region))
        region.slot = slot
        region.guest_phys_addr = gpa
        region.memory_size = size
        region.userspace_addr = hva
        self.call("KVM_SET_USER_MEMORY_REGION", kvm_h.KVM_SET_USER_MEMORY_REGION, &region)

    def signal_msi(self, uint64_t addr, uint32_t data):
        """Deliver an MSI; False if no local APIC is its destination, the guest blocked it, or the machine is closed."""
        cdef kvm_h.kvm_msi msi
        cdef int result
        if self.fd < 0:
            return False
        memset(&msi, 0, sizeof(msi))
        msi.address_lo = <uint32_t>addr
        msi.address_hi = <uint32_t>(addr >> 32)
        msi.data = data
        result = self.attempt_short(kvm_h.KVM_SIGNAL_MSI, &msi)
        if result == -EPERM:  # the kernel's plain -1: nobody has that APIC id
            return False
        if result < 0:
            raise failed("KVM_SIGNAL_MSI", -result)
        return result > 0

    def irq_line(self, uint32_t gsi, bint level):
        """Set the input level of a GSI; nothing happens on a closed machine."""
        cdef kvm_h.kvm_irq_level line
        cdef int result
        if self.fd < 0:
            return
        line.irq = gsi
        line.level = level
        result = self.attempt_short(kvm_h.KVM_IRQ_LINE, &line)
        if result < 0:
            raise failed("KVM_IRQ_LINE", -result)

    def ioeventfd(self, int fd, uint64_t addr, uint32_t length, datamatch, bint pio, bint assign):
        """Bind an eventfd to guest writes, or unbind it."""
        cdef kvm_h.kvm_ioeventfd binding
        memset(&binding, 0, sizeof(binding))
        binding.fd = fd
        binding.addr = addr
        binding.len = length
        if datamatch is not None:
            binding.datamatch = datamatch
            binding.flags |= kvm_h.KVM_IOEVENTFD_FLAG_DATAMATCH
        if pio:
            binding.flags |= kvm_h.KVM_IOEVENTFD_FLAG_PIO
        if not assign:
            binding.flags |= kvm_h.KVM_IOEVENTFD_FLAG_DEASSIGN
        self.call("KVM_IOEVENTFD", kvm_h.KVM_IOEVENTFD, &binding)

    def irqfd(self, int fd, uint32_t gsi, resample_fd, bint assign):
        """Bind an eventfd to a GSI, or unbind it."""
        cdef kvm_h.kvm_irqfd binding
        memset(&binding, 0, sizeof(binding))
        binding.fd = fd
        binding.gsi = gsi
        if not assign:
            binding.flags = kvm_h.KVM_IRQFD_FLAG_DEASSIGN
        elif resample_fd is not None:
            binding.flags = kvm_h.KVM_IRQFD_FLAG_RESAMPLE
            binding.resamplefd = resample_fd
        self.call("KVM_IRQFD", kvm_h.KVM_IRQFD, &binding)

    def set_gsi_routing(self, pins, msis):
        """Replace the routing table: *pins* are (gsi, chip, pin), *msis* are (gsi, addr, data)."""
        cdef size_t count = len(pins) + len(msis)
        cdef kvm_h.kvm_irq_routing *table = <kvm_h.kvm_irq_routing *>zeroed(
            sizeof(kvm_h.kvm_irq_routing) + count * sizeof(kvm_h.kvm_irq_routing_entry))
        cdef kvm_h.kvm_irq_routing_entry *entry = table.entries
        cdef uint64_t addr
        try:
            table.nr = count
            for gsi, chip, pin in pins:
                entry.gsi = gsi
                entry.type = kvm_h.KVM_IRQ_ROUTING_IRQCHIP
                entry.u.irqchip.irqchip = chip
                entry.u.irqchip.pin = pin
                entry += 1
            for gsi, addr, data in msis:
                entry.gsi = gsi
                entry.type = kvm_h.KVM_IRQ_ROUTING_MSI
                entry.u.msi.address_lo = <uint32_t>addr
                entry.u.msi.address_hi = <uint32_t>(addr >> 32)
                entry.u.msi.data = data
                entry += 1
            self.call("KVM_SET_GSI_ROUTING", kvm_h.KVM_SET_GSI_ROUTING, table)
        finally:
            free(table)
