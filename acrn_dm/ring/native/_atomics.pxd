# Loads and stores of memory that another processor writes at the same time: each is one access of the width it names.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "_atomics.h":
    uint16_t fr_load_u16(const void *at) noexcept nogil
    uint32_t fr_load_u32(const void *at) noexcept nogil
    uint64_t fr_load_u64(const void *at) noexcept nogil
    void fr_store_u16(void *at, uint16_t value) noexcept nogil
    void fr_store_u32(void *at, uint32_t value) noexcept nogil
    void fr_store_u64(void *at, uint64_t value) noexcept nogil
    void fr_store_u16_pair(void *at, uint32_t pair) noexcept nogil
    void fr_store_u32_pair(void *at, uint32_t first, uint32_t second) noexcept nogil
    uint16_t fr_load_acquire_u16(const void *at) noexcept nogil
    uint64_t fr_load_acquire_u64(const void *at) noexcept nogil
    void fr_store_release_u16(void *at, uint16_t value) noexcept nogil
    void fr_store_release_u32(void *at, uint32_t value) noexcept nogil
    void fr_store_release_u64(void *at, uint64_t value) noexcept nogil
    void fr_set_bit(uint8_t *bits, uint64_t number) noexcept nogil
    void fr_full_fence() noexcept nogil
    bint fr_unlikely(bint condition) noexcept nogil
