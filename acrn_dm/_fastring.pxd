# The virtqueue at C speed: what other Cython modules may ``cimport``.
#
# Leaf functions are ``noexcept nogil`` and return an FrStatus; who calls from Python code turns a negative one into an
# exception with ``fr_raise``. Structs are plain data: whoever holds one keeps the object alive that owns it (an FrRing
# its SplitRing, an FrMemory its MemoryMap). A module that cimports this needs the package's folder in its
# ``include_dirs``, for ``_atomics.h``. Spec numbers are those of virtio 1.4.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<sys/uio.h>":
    # A translated stretch of a guest buffer. It is a struct iovec, so a run of them goes to readv and writev as it is.
    ctypedef struct FrSegment "struct iovec":
        void *hva "iov_base"
        size_t len "iov_len"

cdef extern from "_atomics.h":
    uint16_t fr_load_u16(const void *at) noexcept nogil
    uint32_t fr_load_u32(const void *at) noexcept nogil
    uint64_t fr_load_u64(const void *at) noexcept nogil
    void fr_store_u16(void *at, uint16_t value) noexcept nogil
    void fr_store_u32(void *at, uint32_t value) noexcept nogil
    uint16_t fr_load_acquire_u16(const void *at) noexcept nogil
    void fr_store_release_u16(void *at, uint16_t value) noexcept nogil
    void fr_full_fence() noexcept nogil
    bint fr_unlikely(bint condition) noexcept nogil

cdef enum:
    FR_MAX_REGIONS = 8        # regions of guest RAM; scanned linearly, which beats every tree at this number
    FR_MAX_BATCH = 256        # chains one fr_pop_batch can return
    FR_MAX_DESCRIPTORS = 1024  # of one chain through an indirect table, where the queue is smaller; QEMU's limit

    FR_DESC_SIZE = 16         # 2.7.5: le64 addr, le32 len, le16 flags, le16 next
    FR_DESC_F_NEXT = 1
    FR_DESC_F_WRITE = 2
    FR_DESC_F_INDIRECT = 4
    FR_AVAIL_F_NO_INTERRUPT = 1
    FR_USED_F_NO_NOTIFY = 1

cdef enum FrStatus:
    FR_OK = 0
    FR_EMPTY = 1              # nothing available
    # What a driver can do wrong; fault_index and fault_value of the ring tell where and what.
    FR_E_AVAIL_JUMP = -1      # avail.idx is further ahead than the queue is long
    FR_E_HEAD = -2            # an available ring entry names a descriptor outside the table
    FR_E_IN_FLIGHT = -3       # ... or the head of a chain the device still works on
    FR_E_NEXT = -4            # next points outside its table
    FR_E_TOO_LONG = -5        # more descriptors than its table has entries, which is a loop, or than one chain may have
    FR_E_ORDER = -6           # device-readable after device-writable
    FR_E_ADDRESS = -7         # buffer not in RAM
    FR_E_TOTAL = -8           # summed length does not fit 32 bits
    FR_E_INDIRECT_OFF = -9    # indirect descriptor without VIRTIO_F_INDIRECT_DESC
    FR_E_INDIRECT_NESTED = -10
    FR_E_INDIRECT_NEXT = -11  # INDIRECT and NEXT in one descriptor
    FR_E_INDIRECT_LEN = -12   # table length 0 or no multiple of 16
    FR_E_INDIRECT_ADDRESS = -13  # table not in RAM
    # What our own caller can do wrong.
    FR_E_ROOM = -14           # the caller's segment array is too small for even one chain
    FR_E_NOT_IN_FLIGHT = -15  # pushed twice, or never popped
    FR_E_NOT_LAST = -16       # given back, but not the last one popped

cdef struct FrRegion:
    uint64_t gpa
    uint64_t size
    uint8_t *hva

cdef struct FrMemory:
    uint32_t n_regions
    uint32_t n_joints         # pairs of regions that touch: how often one buffer can be split
    FrRegion regions[FR_MAX_REGIONS]

cdef struct FrChain:
    FrSegment *segments       # n_out device-readable ones, then n_in device-writable ones
    uint32_t n_out
    uint32_t n_in
    uint32_t out_bytes
    uint32_t in_bytes
    uint16_t head             # descriptor index: the chain's name in the used ring
    uint16_t position         # avail index it was taken at

cdef struct FrBatch:
    FrChain *chains
    FrSegment *segments       # shared by all chains of the batch, recycled by the next
    uint32_t max_chains
    uint32_t max_segments
    uint32_t n_chains         # filled in by fr_pop_batch

cdef struct FrRing:
    const FrMemory *memory
    const uint8_t *desc       # size entries of FR_DESC_SIZE
    const uint8_t *avail      # le16 flags, le16 idx, le16 ring[size], le16 used_event
    uint8_t *used             # le16 flags, le16 idx, {le32 id, le32 len} ring[size], le16 avail_event
    uint8_t *in_flight        # one byte per head: popped and not yet pushed
    uint32_t size
    uint32_t max_descriptors  # of one chain
    uint16_t next_avail       # index of the next available entry to take
    uint16_t seen_avail       # shadow of avail.idx; next_avail <= seen_avail <= next_avail + size, modulo 2^16
    uint16_t next_used        # index the next pushed element gets
    uint16_t published_used   # used.idx as the driver sees it
    bint event_idx
    bint indirect
    int status                # FR_OK, or the fault that broke the ring for good
    uint32_t fault_index
    uint64_t fault_value

# One guest address becomes a pointer here and nowhere else. NULL outside RAM; *room* is how far the pointer is good.
cdef inline void *fr_translate(const FrMemory *memory, uint64_t gpa, uint64_t *room) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t offset
    for i in range(memory.n_regions):
        # Below the region's base the subtraction wraps to a huge offset, so one comparison checks both ends.
        offset = gpa - memory.regions[i].gpa
        if offset < memory.regions[i].size:
            room[0] = memory.regions[i].size - offset
            return memory.regions[i].hva + offset
    room[0] = 0
    return NULL

# Whether all of a range is RAM, be it in one region or across touching ones.
cdef bint fr_in_ram(const FrMemory *memory, uint64_t gpa, uint64_t length) noexcept nogil

# Take one chain; *segments* has room for *room* of them. FR_EMPTY, or a negative status, which breaks the ring.
cdef int fr_pop(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil
# Take up to *limit* chains, fewer where the batch has no room. A malformed chain ends the batch; the next call meets it
# first, breaks the ring and says why, so what the device sees does not depend on its batch size.
cdef int fr_pop_batch(FrRing *ring, FrBatch *batch, uint32_t limit) noexcept nogil
# Give the chain popped last back, as if it had never been taken.
cdef int fr_unpop(FrRing *ring, const FrChain *chain) noexcept nogil
# Store a used element. The driver does not see it before fr_publish.
cdef inline int fr_push(FrRing *ring, uint16_t head, uint32_t written) noexcept nogil:
    cdef uint8_t *element = ring.used + 4 + 8 * (ring.next_used & (ring.size - 1))
    if head >= ring.size or not ring.in_flight[head]:
        return FR_E_NOT_IN_FLIGHT
    fr_store_u32(element, head)
    fr_store_u32(element + 4, written)
    ring.in_flight[head] = False
    ring.next_used += 1
    return FR_OK

# Show the driver everything pushed; true when it wants an interrupt for that.
cdef bint fr_publish(FrRing *ring) noexcept nogil
cdef void fr_disable_kicks(FrRing *ring) noexcept nogil
# FR_OK when more chains came meanwhile (no kick tells of them: look again), FR_EMPTY when none did.
cdef int fr_enable_kicks(FrRing *ring) noexcept nogil
# Refresh seen_avail from avail.idx.
cdef int fr_load_avail(FrRing *ring) noexcept nogil

# The funnel from a negative status to GuestError (the driver's fault) or ValueError (the caller's).
cdef int fr_raise(const FrRing *ring, int status) except -1 with gil


cdef class MemoryMap:
    cdef FrMemory memory
    cdef Py_buffer exports[FR_MAX_REGIONS]  # each held until close: a mapping cannot go while we point into it
    cdef Py_ssize_t users                   # open rings and living views
    cdef bint closed
    cdef int add_region(self, object gpa, object buffer) except -1
    cdef void release_exports(self) noexcept
    cdef uint64_t checked(self, object gpa, uint64_t length) except? 0


cdef class SplitRing:
    cdef FrRing ring
    cdef FrBatch batch
    cdef MemoryMap memory                   # keeps ring.memory and every pointer of the ring valid
    cdef bint closed
    cdef bint walking                       # a thread is in the walk, without the GIL
    cdef int check(self) except -1


cdef enum:
    FR_INLINE_SEGMENTS = 4                  # chains up to this long need no allocation of their own


cdef class Chain:
    cdef SplitRing ring
    cdef FrChain chain
    cdef FrSegment few[FR_INLINE_SEGMENTS]
    cdef uint32_t cursor                    # next byte of the readable part
    cdef uint32_t filled                    # bytes of the writable part written so far
    cdef bint done                          # pushed or given back
    cdef list views                         # handed out so far; None until the first
    cdef int check(self) except -1
    cdef int finish(self) except -1
    cdef int copy(self, FrSegment *segments, size_t offset, uint8_t *host, size_t length, bint to_guest) except -1
    cdef list windows(self, FrSegment *segments, uint32_t n, uint32_t total, object offset, object length, bint ro)
