from acrn_dm.hypervisors.kvm cimport _linux_kvm as kvm_h
from acrn_dm.hypervisors.kvm.vcpu._state cimport VcpuState
from posix.types cimport pid_t

cdef class Vcpu(VcpuState):
    cdef kvm_h.kvm_run *_run
    cdef size_t _run_size
    cdef pid_t _tid  # of the thread inside ``run``, else 0; changes only under the GIL

    cdef int map(self, size_t size) except -1
