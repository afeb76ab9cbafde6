from acrn_dm.hypervisors.kvm cimport _linux_kvm as kvm_h

cdef int port_access(kvm_h.kvm_run *run, pio_read, pio_write) except -1
cdef int memory_access(kvm_h.kvm_run *run, mmio_read, mmio_write) except -1
cdef tuple ending(kvm_h.kvm_run *run, str place)
