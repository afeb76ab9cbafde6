# Layout of a split virtqueue (virtio 1.4, 2.7) for the C units: the fields of ring/layout.py, inlined.
#
# Sizes and alignments of whole parts are only there. The driver in ring/driver.py uses that file, so every test of a
# ring holds the two together.

from acrn_dm.ring.native._atomics cimport fr_load_u16, fr_load_u32, fr_load_u64
from acrn_dm.ring.native._buffers cimport Descriptor
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    FR_AVAIL_F_NO_INTERRUPT = 1
    FR_USED_F_NO_NOTIFY = 1

# The only loads of a descriptor; field by field, because a wide load stalls behind the driver's narrow stores. *next*
# means nothing, and is not loaded, where the flags don't say so.
cdef inline void load_fields(const uint8_t *at, Descriptor *d) noexcept nogil:
    d.addr = fr_load_u64(at)
    d.len = fr_load_u32(at + 8)
    d.flags = fr_load_u16(at + 12)

cdef inline uint16_t load_next(const uint8_t *at) noexcept nogil:
    return fr_load_u16(at + 14)

# Available ring: le16 flags, le16 idx, le16 ring[size], le16 used_event.
cdef inline const uint8_t *avail_flags(const uint8_t *avail) noexcept nogil:
    return avail

cdef inline const uint8_t *avail_idx(const uint8_t *avail) noexcept nogil:
    return avail + 2

cdef inline const uint8_t *avail_entry(const uint8_t *avail, size_t slot) noexcept nogil:
    return avail + 4 + 2 * slot

cdef inline const uint8_t *used_event(const uint8_t *avail, size_t size) noexcept nogil:
    return avail + 4 + 2 * size

# Used ring: le16 flags, le16 idx, {le32 id, le32 len} ring[size], le16 avail_event.
cdef inline uint8_t *used_flags(uint8_t *used) noexcept nogil:
    return used

cdef inline uint8_t *used_idx(uint8_t *used) noexcept nogil:
    return used + 2

cdef inline uint8_t *used_element(uint8_t *used, size_t slot) noexcept nogil:
    return used + 4 + 8 * slot

cdef inline uint8_t *used_element_len(uint8_t *element) noexcept nogil:
    return element + 4

cdef inline uint8_t *avail_event(uint8_t *used, size_t size) noexcept nogil:
    return used + 4 + 8 * size
