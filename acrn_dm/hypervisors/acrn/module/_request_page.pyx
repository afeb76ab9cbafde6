# cython: auto_pickle=False, autotestdict=False
"""The page of I/O requests that ACRN's kernel module and this process share."""

from acrn_dm.hypervisors.acrn.module cimport _linux_acrn as acrn
from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap


cdef extern from *:
    """
    #include <stddef.h>
    #include <linux/acrn.h>
    #include <sys/mman.h>

    _Static_assert(sizeof(struct acrn_io_request) == 256, "acrn_io_request");
    _Static_assert(sizeof(struct acrn_io_request_buffer) == 4096, "acrn_io_request_buffer");
    /* Three kinds of request keep size, and two keep the value, at one place: the page's reader relies on it. */
    _Static_assert(offsetof(struct acrn_pio_request, value) == offsetof(struct acrn_pci_request, value), "value");
    _Static_assert(offsetof(struct acrn_pio_request, size) == offsetof(struct acrn_pci_request, size), "size");
    _Static_assert(offsetof(struct acrn_pio_request, size) == offsetof(struct acrn_mmio_request, size), "size");

    #define LOAD_ACQUIRE(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    """
    int madvise(void *address, size_t length, int advice) nogil
    uint32_t LOAD_ACQUIRE(uint32_t *p) nogil
    int MADV_DONTFORK


cdef class RequestPage:
    """The page through which requests come: 16 slots of 256 bytes, one a vCPU.

    The kernel module keeps it pinned, so it is a mapping of its own, page aligned, and not for child processes.
    """

    cdef acrn.acrn_io_request *_slots

    def __cinit__(self):
        cdef void *page = mmap(
            NULL, sizeof(acrn.acrn_io_request_buffer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if page == MAP_FAILED:
            raise OSError(errno, "mmap of the I/O request page")
        madvise(page, sizeof(acrn.acrn_io_request_buffer), MADV_DONTFORK)
        self._slots = <acrn.acrn_io_request *>page

    def __dealloc__(self):
        self.close()

    def close(self):
        """Unmap it; idempotent. Only when the virtual machine is gone."""
        if self._slots != NULL:
            munmap(self._slots, sizeof(acrn.acrn_io_request_buffer))
        self._slots = NULL

    @property
    def address(self):
        """Its address in this process."""
        return <uintptr_t>self._slots

    cdef acrn.acrn_io_request *_slot(self, int vcpu) except NULL:
        if self._slots == NULL or not 0 <= vcpu < acrn.ACRN_IO_REQUEST_MAX:
            raise ValueError(f"no request slot {vcpu}")
        return &self._slots[vcpu]

    def pending(self, int vcpus, uint32_t owner=0):
        """Return the slots that wait for us: in state PROCESSING, and assigned to *owner* (0: not to the kernel).

        The state is loaded with acquire semantics: what stands in such a slot is complete.
        """
        cdef int i
        cdef acrn.acrn_io_request *slot
        found = []
        for i in range(vcpus):
            slot = self._slot(i)
            if LOAD_ACQUIRE(&slot.processed) == acrn.ACRN_IOREQ_STATE_PROCESSING and slot.kernel_handled == owner:
                found.append(i)
        return found

    def request(self, int vcpu):
        """Return (kind, is a write, address, size, value) of a pending slot.

        The address of a PCI request is laid out as in a memory-mapped configuration space: bus in bits 27:20, device
        19:15, function 14:12, register 11:0.
        """
        cdef acrn.acrn_io_request *slot = self._slot(vcpu)
        cdef acrn.acrn_pio_request *pio = &slot.reqs.pio_request
        cdef acrn.acrn_pci_request *pci = &slot.reqs.pci_request
        cdef acrn.acrn_mmio_request *mmio = &slot.reqs.mmio_request
        cdef uint32_t kind = slot.type
        cdef bint write = pio.direction == acrn.ACRN_IOREQ_DIR_WRITE
        if kind == acrn.ACRN_IOREQ_TYPE_PORTIO:
            return kind, write, pio.address, pio.size, pio.value
        if kind == acrn.ACRN_IOREQ_TYPE_PCICFG:
            address = (pci.bus & 0xFF) << 20 | (pci.dev & 0x1F) << 15 | (pci.func & 7) << 12 | (pci.reg & 0xFFF)
            return kind, write, address, pci.size, pci.value
        return kind, write, mmio.address, mmio.size, mmio.value

    def answer(self, int vcpu, uint64_t value):
        """Store the result of a read. The state is the kernel's to change, when it is told."""
        cdef acrn.acrn_io_request *slot = self._slot(vcpu)
        if slot.type == acrn.ACRN_IOREQ_TYPE_PORTIO or slot.type == acrn.ACRN_IOREQ_TYPE_PCICFG:
            slot.reqs.pio_request.value = <uint32_t>value
        else:
            slot.reqs.mmio_request.value = value
