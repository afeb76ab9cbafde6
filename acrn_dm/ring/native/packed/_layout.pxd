# Layout of a packed virtqueue (virtio 1.4, 2.8) for the C units: fields of a descriptor and of an event suppression
# structure, and the numbers in them.

from acrn_dm.ring.native._atomics cimport fr_load_u16, fr_load_u32, fr_load_u64
from acrn_dm.ring.native._buffers cimport Descriptor
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FR_DESC_F_AVAIL = 1 << 7    # 2.8.1: the wrap counter of who makes the descriptor available
    FR_DESC_F_USED = 1 << 15    # ... its inverse; the same again once the descriptor is used
    FR_MARKS = FR_DESC_F_AVAIL | FR_DESC_F_USED
    FR_EVENT_ENABLE = 0         # 2.8.10
    FR_EVENT_DISABLE = 1
    FR_EVENT_DESC = 2           # with EVENT_IDX; 3 is reserved
    FR_EVENT_FLAGS = 3          # the other bits are reserved
    FR_OFF = 0x7FFF             # of a position: the slot; above it the wrap counter
    FR_WRAP_SHIFT = 15
    FR_LENGTH = 0xFFFF          # descriptors of a chain, within FrPacked.lengths
    FR_N_IDS = 1 << 16          # buffer ids: the driver chooses 16 bits as it likes (2.8.13)

# Descriptor: le64 addr, le32 len, le16 id, le16 flags. All but addr is loaded and stored as one word, so that flags are
# never of another moment than what they speak of.
cdef inline uint8_t *desc_len(uint8_t *at) noexcept nogil:
    return at + 8

cdef inline uint8_t *desc_id(uint8_t *at) noexcept nogil:
    return at + 12

cdef inline uint8_t *desc_flags(uint8_t *at) noexcept nogil:
    return at + 14

cdef inline const uint8_t *desc_word(const uint8_t *at) noexcept nogil:
    return at + 8

cdef inline uint32_t len_of(uint64_t word) noexcept nogil:
    return <uint32_t>word

cdef inline uint16_t id_of(uint64_t word) noexcept nogil:
    return <uint16_t>(word >> 32)

cdef inline uint32_t flags_of(uint64_t word) noexcept nogil:
    return <uint32_t>(word >> 48)

cdef inline uint64_t word_of(uint32_t length, uint16_t id, uint32_t flags) noexcept nogil:
    return length | <uint64_t>id << 32 | <uint64_t>flags << 48

cdef inline void split_word(uint64_t addr, uint64_t word, Descriptor *d) noexcept nogil:
    d.addr, d.len, d.next, d.flags = addr, len_of(word), id_of(word), <uint16_t>flags_of(word)

# Entry of an indirect table, where id and all flags but WRITE are ignored (2.8.7).
cdef inline void load_table_entry(const uint8_t *at, Descriptor *d) noexcept nogil:
    d.addr = fr_load_u64(at)
    d.len = fr_load_u32(at + 8)
    d.flags = fr_load_u16(at + 14)

# A position, as event suppression structures and vhost have it: slot, and the wrap counter in bit 15.
cdef inline uint16_t position_of(uint32_t slot, bint wrap) noexcept nogil:
    return <uint16_t>(slot | <uint32_t>wrap << FR_WRAP_SHIFT)

# Event suppression structure: le16 slot and wrap counter, le16 flags.
cdef inline uint8_t *event_flags(uint8_t *event) noexcept nogil:
    return event + 2

cdef inline uint32_t event_of(uint16_t position, uint16_t flags) noexcept nogil:
    return position | <uint32_t>flags << 16
