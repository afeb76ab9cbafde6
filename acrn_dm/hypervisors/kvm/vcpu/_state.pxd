from acrn_dm.base._ioctl cimport DeviceFile

cdef class VcpuState(DeviceFile):
    cdef readonly unsigned long apic_id
