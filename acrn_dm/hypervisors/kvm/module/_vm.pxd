from acrn_dm.base._ioctl cimport DeviceFile

cdef class Vm(DeviceFile):
    cdef size_t _vcpu_mmap_size
