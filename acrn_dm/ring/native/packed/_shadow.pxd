# The driver's side of a packed shadow ring (ring/shadow.py). Its descriptors are copies: in the driver's own ring those
# of a chain in flight are overwritten by used ones of others, so each is kept in a cell until its chain is back.

from acrn_dm.ring.native._atomics cimport (
    fr_load_acquire_u16, fr_load_u16, fr_load_u32, fr_load_u64, fr_store_release_u16, fr_store_u16, fr_store_u32,
)
from acrn_dm.ring.native._buffers cimport FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE
from acrn_dm.ring.native._records cimport FrChain, FrPacked
from acrn_dm.ring.native.packed._layout cimport (
    FR_DESC_F_AVAIL, FR_LENGTH, FR_MARKS, FR_OFF, desc_flags, desc_id, desc_len,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

cdef struct FrCell:
    uint64_t addr
    uint32_t len
    uint16_t flags            # NEXT, WRITE and INDIRECT
    uint16_t next             # the chain's next cell, or the next free one

cdef struct FrPackedShadow:
    uint8_t *desc             # NULL: closed
    FrCell *cells             # as many as descriptors can be in flight
    uint8_t *first            # of what was added since the last publish, which stores its flags; NULL: nothing was
    uint32_t size
    uint32_t free             # the first free cell
    uint32_t next_avail
    uint32_t last_used
    uint16_t avail_marks
    uint16_t used_marks
    uint16_t first_flags

cdef inline void fps_begin(FrPackedShadow *shadow) noexcept nogil:
    cdef uint32_t i
    for i in range(shadow.size):
        shadow.cells[i].next = <uint16_t>(i + 1)

cdef inline void fps_open(FrPackedShadow *shadow, uint8_t *desc) noexcept nogil:
    memset(desc, 0, FR_DESC_SIZE * shadow.size)
    shadow.desc, shadow.first = desc, NULL
    shadow.next_avail = shadow.last_used = 0
    shadow.avail_marks, shadow.used_marks = FR_DESC_F_AVAIL, FR_MARKS

# Keep the descriptors of a chain that was taken last from its ring; returns the first cell. What the driver has changed
# since the walk is the back-end's to find wrong, as all of it is; how many there are and where the list ends is not.
cdef inline uint32_t fps_keep(
    FrPackedShadow *shadow, const FrPacked *packed, const FrChain *chain, uint32_t *n,
) noexcept nogil:
    cdef uint32_t slot = chain.position & FR_OFF
    cdef uint32_t first = shadow.free
    cdef uint32_t i
    cdef uint8_t *at
    cdef FrCell *cell
    n[0] = packed.lengths[chain.head] & FR_LENGTH
    for i in range(n[0]):
        at = <uint8_t *>packed.ring.desc + slot * FR_DESC_SIZE
        cell = &shadow.cells[shadow.free]
        cell.addr, cell.len = fr_load_u64(at), fr_load_u32(desc_len(at))
        cell.flags = fr_load_u16(desc_flags(at)) & (FR_DESC_F_WRITE | FR_DESC_F_INDIRECT)
        if i + 1 < n[0]:
            cell.flags |= FR_DESC_F_NEXT
        shadow.free = cell.next
        slot = 0 if slot + 1 == packed.ring.size else slot + 1
    return first

# Make a chain of *n* cells available under *head*; the other side sees it at the next fps_publish.
cdef inline void fps_add(FrPackedShadow *shadow, uint16_t head, uint32_t first, uint32_t n) noexcept nogil:
    cdef uint32_t _
    cdef uint16_t flags
    cdef uint8_t *at
    cdef const FrCell *cell = &shadow.cells[first]
    for _ in range(n):
        at = shadow.desc + shadow.next_avail * FR_DESC_SIZE
        fr_store_u32(at, <uint32_t>cell.addr)
        fr_store_u32(at + 4, <uint32_t>(cell.addr >> 32))
        fr_store_u32(desc_len(at), cell.len)
        fr_store_u16(desc_id(at), head)
        flags = cell.flags | shadow.avail_marks
        if shadow.first == NULL:
            shadow.first, shadow.first_flags = at, flags
        else:
            fr_store_u16(desc_flags(at), flags)
        shadow.next_avail += 1
        if shadow.next_avail == shadow.size:
            shadow.next_avail = 0
            shadow.avail_marks ^= FR_MARKS
        cell = &shadow.cells[cell.next]

cdef inline void fps_publish(FrPackedShadow *shadow) noexcept nogil:
    if shadow.first != NULL:
        fr_store_release_u16(desc_flags(shadow.first), shadow.first_flags)
        shadow.first = NULL

# Whether the next descriptor is used, as the other side says, and what it says with it, unchecked.
cdef inline bint fps_look(const FrPackedShadow *shadow, uint32_t *head, uint32_t *written) noexcept nogil:
    cdef uint8_t *at = shadow.desc + shadow.last_used * FR_DESC_SIZE
    cdef uint16_t flags = fr_load_acquire_u16(desc_flags(at))
    if (flags & FR_MARKS) != shadow.used_marks:
        return False
    head[0] = fr_load_u16(desc_id(at))
    written[0] = fr_load_u32(desc_len(at)) if flags & FR_DESC_F_WRITE else 0  # 2.8.4: reserved if nothing was written
    return True

# A chain of *n* cells is back: they are free, and the next used descriptor is behind it.
cdef inline void fps_take(FrPackedShadow *shadow, uint32_t first, uint32_t n) noexcept nogil:
    cdef uint32_t last = first
    cdef uint32_t _
    for _ in range(1, n):
        last = shadow.cells[last].next
    shadow.cells[last].next = <uint16_t>shadow.free
    shadow.free = first
    shadow.last_used += n
    if shadow.last_used >= shadow.size:
        shadow.last_used -= shadow.size
        shadow.used_marks ^= FR_MARKS
