# The driver's side of a split shadow ring (ring/shadow.py): heads go into its available ring, used elements come back.
# The descriptor table is the driver's own.

from acrn_dm.ring.native._atomics cimport (
    fr_full_fence, fr_load_acquire_u16, fr_load_u16, fr_load_u32, fr_store_release_u16, fr_store_u16,
)
from acrn_dm.ring.native.split._layout cimport (
    avail_entry, avail_event, avail_idx, used_element, used_element_len, used_event, used_idx,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

cdef enum:
    NO_NOTIFY = 1             # flags of the used ring: the other side's
    NO_INTERRUPT = 1          # flags of the available ring: ours

cdef struct FrSplitShadow:
    uint8_t *avail            # NULL: closed
    uint8_t *used
    uint32_t size
    uint16_t next_avail
    uint16_t last_used

# Begin with empty rings of *size* entries; their event indices are left out, for nothing is suppressed.
cdef inline void fss_open(FrSplitShadow *shadow, uint8_t *avail, uint8_t *used, uint32_t size) noexcept nogil:
    shadow.avail, shadow.used, shadow.size = avail, used, size
    shadow.next_avail = shadow.last_used = 0
    memset(avail, 0, used_event(avail, size) - <const uint8_t *>avail)
    memset(used, 0, avail_event(used, size) - used)

cdef inline void fss_close(FrSplitShadow *shadow) noexcept nogil:
    shadow.avail = shadow.used = NULL

# Enter a head; the other side sees it at the next fss_publish. There are never more than the ring has entries.
cdef inline void fss_add(FrSplitShadow *shadow, uint16_t head) noexcept nogil:
    fr_store_u16(<uint8_t *>avail_entry(shadow.avail, shadow.next_avail & (shadow.size - 1)), head)
    shadow.next_avail += 1

cdef inline void fss_publish(FrSplitShadow *shadow) noexcept nogil:
    fr_store_release_u16(<uint8_t *>avail_idx(shadow.avail), shadow.next_avail)

# Whether the other side wants to be told of what was published: not while it looks by itself.
cdef inline bint fss_wants_kick(const FrSplitShadow *shadow) noexcept nogil:
    fr_full_fence()
    return (fr_load_u16(shadow.used) & NO_NOTIFY) == 0

# Whether the other side is to tell of what it returns. When it is again, look once more.
cdef inline void fss_want_calls(const FrSplitShadow *shadow, bint wanted) noexcept nogil:
    fr_store_u16(shadow.avail, 0 if wanted else NO_INTERRUPT)
    fr_full_fence()

# How many used elements wait to be taken, as the other side says: more than *size* is nonsense of its.
cdef inline uint16_t fss_returned(const FrSplitShadow *shadow) noexcept nogil:
    return <uint16_t>(fr_load_acquire_u16(used_idx(shadow.used)) - shadow.last_used)

# What the next used element says, unchecked: any head and any length.
cdef inline void fss_look(const FrSplitShadow *shadow, uint32_t *head, uint32_t *written) noexcept nogil:
    cdef uint8_t *element = used_element(shadow.used, shadow.last_used & (shadow.size - 1))
    head[0] = fr_load_u32(element)
    written[0] = fr_load_u32(used_element_len(element))

cdef inline void fss_take(FrSplitShadow *shadow) noexcept nogil:
    shadow.last_used += 1
