# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Files in memory (tmpfs), mapped: a read is a copy, where a system call would take several times as long.

A hole is left alone, for to touch it would fill it: a chunk is read here once the kernel has said that all of it is in
memory. What has been cut off meanwhile ends the copy, not the process (``guarded.h``).
"""

from acrn_dm._fastring cimport FrSegment
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from "devices/virtio_blk/native/shortcut/guarded.h" nogil:
    bint blk_guard()
    bint blk_copy_guarded(const uint8_t *source, const FrSegment *to, unsigned n)

cdef extern from "<sys/mman.h>" nogil:
    enum:
        MADV_DONTDUMP
        MADV_DONTFORK
        MAP_SHARED
        PROT_READ
    const void *MAP_FAILED
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t length)
    int madvise(void *address, size_t length, int advice)
    int mincore(void *address, size_t length, unsigned char *pages)

cdef enum:
    PAGE = 4096               # the smallest there are
    PAGES = 512               # of a chunk
    KNOWN = 255               # of a chunk: it is in memory
    PATIENCE = 64             # reads after which a chunk with holes is asked for again


cdef bint mapping_open(BlkMapping *mapping, int fd, uint64_t size) noexcept nogil:
    cdef void *base
    mapping.base = NULL
    if size == 0 or not blk_guard():
        return False
    mapping.chunks = <uint8_t *>calloc((size + BLK_CHUNK - 1) // BLK_CHUNK, 1)
    if mapping.chunks == NULL:
        return False
    base = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0)
    if base == MAP_FAILED:
        free(mapping.chunks)
        return False
    madvise(base, size, MADV_DONTDUMP)
    madvise(base, size, MADV_DONTFORK)
    mapping.base, mapping.size, mapping.punches = <const uint8_t *>base, size, 0
    return True


cdef void mapping_close(BlkMapping *mapping) noexcept nogil:
    if mapping.base != NULL:
        munmap(<void *>mapping.base, mapping.size)
        free(mapping.chunks)
        mapping.base = NULL


cdef bint ask(BlkMapping *mapping, uint64_t chunk) noexcept nogil:
    """Whether all of a chunk is in memory, as the kernel says."""
    cdef unsigned char pages[PAGES]
    cdef uint64_t start = chunk * BLK_CHUNK
    cdef uint64_t length = min(<uint64_t>BLK_CHUNK, mapping.size - start)
    cdef uint32_t n = <uint32_t>((length + PAGE - 1) // PAGE)
    cdef uint32_t i
    memset(pages, 1, n)       # where pages are larger, fewer are filled in
    if mincore(<void *>(mapping.base + start), length, pages) != 0:
        return False
    for i in range(n):
        if not pages[i] & 1:
            return False
    return True


cdef inline bint known(BlkMapping *mapping, uint64_t chunk) noexcept nogil:
    cdef uint8_t *state = &mapping.chunks[chunk]
    if state[0] == KNOWN:
        return True
    if state[0] == 0:
        state[0] = KNOWN if ask(mapping, chunk) else PATIENCE
        return state[0] == KNOWN
    state[0] -= 1
    return False


cdef bint mapping_read(
    BlkMapping *mapping, const FrSegment *segments, uint32_t n, uint64_t offset, uint32_t length, uint64_t punches
) noexcept nogil:
    cdef uint64_t chunk = offset // BLK_CHUNK
    cdef uint64_t last = (offset + length - 1) // BLK_CHUNK
    if mapping.punches != punches:
        mapping.punches = punches
        memset(mapping.chunks, 0, (mapping.size + BLK_CHUNK - 1) // BLK_CHUNK)
    while chunk <= last:
        if not known(mapping, chunk):
            return False
        chunk += 1
    return blk_copy_guarded(mapping.base + offset, segments, n)
