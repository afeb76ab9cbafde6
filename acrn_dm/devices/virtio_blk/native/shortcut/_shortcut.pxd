# Transfers that need no engine, on the loop's thread: true when they are done, false when the engine has to do them.

from acrn_dm._fastring cimport FrSegment
from acrn_dm.devices.virtio_blk.image._standing cimport BlkStanding, Standing
from acrn_dm.devices.virtio_blk.native.shortcut._mapping cimport BlkMapping
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    BLK_AT_ONCE = 128 << 10   # bytes; larger transfers would keep the loop busy copying

cdef struct Luck:             # with calls that the kernel may refuse because they would wait
    bint none                 # the file has no such calls
    uint32_t skip             # calls not tried, since the last ones were refused
    uint32_t misses


cdef class BlkShortcut:
    cdef readonly uint64_t taken      # transfers done here
    cdef Standing standing
    cdef BlkStanding *known
    cdef BlkMapping mapping
    cdef Luck reads
    cdef Luck writes
    cdef int fd
    cdef bint in_memory               # all of the file is: nothing waits for a medium
    # *n* segments have *length* bytes together, for *offset* in the file. *deep*: an engine's call would be shared.
    cdef bint read(
        self, const FrSegment *segments, uint32_t n, uint64_t offset, uint32_t length, bint deep
    ) noexcept nogil
    cdef bint write(
        self, const FrSegment *segments, uint32_t n, uint64_t offset, uint32_t length, bint durable
    ) noexcept nogil
