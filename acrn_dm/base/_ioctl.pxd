cdef int control(int fd, unsigned long request, void *argument) noexcept nogil
cdef void *zeroed(size_t size) except NULL

cdef class DeviceFile:
    cdef readonly int fd
    cdef object failed  # (call, errno) -> the HostError that tells people

    cdef int open_path(self, str path) except -1
    cdef int attempt(self, unsigned long request, void *argument) noexcept
    cdef int attempt_short(self, unsigned long request, void *argument) noexcept
    cdef int call(self, str name, unsigned long request, void *argument) except -1
    cdef int call_value(self, str name, unsigned long request, unsigned long argument) except -1
