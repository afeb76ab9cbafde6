/* Loads, stores and fences on memory that the guest writes at the same time.
 *
 * Every access is a single one, which the compiler may neither repeat nor split: a second load of a guest-written field
 * is a time-of-check bug. The C11 builtins choose the instructions; a hand-written mfence would cost ten times the
 * `lock or` that gcc emits for the full fence.
 */
#ifndef ACRN_DM_ATOMICS_H
#define ACRN_DM_ATOMICS_H

#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "virtio 1.x rings are little-endian and these accessors do not swap: a little-endian host is needed"
#endif

/* Descriptor fields: an indirect table may stand at any address (virtio 1.4, 2.7.5.3 asks for no alignment), hence packed. */
struct fr_unaligned_u16 { uint16_t value; } __attribute__((packed, may_alias));
struct fr_unaligned_u32 { uint32_t value; } __attribute__((packed, may_alias));
struct fr_unaligned_u64 { uint64_t value; } __attribute__((packed, may_alias));

static inline uint16_t fr_load_u16(const void *at) { return ((const volatile struct fr_unaligned_u16 *)at)->value; }
static inline uint32_t fr_load_u32(const void *at) { return ((const volatile struct fr_unaligned_u32 *)at)->value; }
static inline uint64_t fr_load_u64(const void *at) { return ((const volatile struct fr_unaligned_u64 *)at)->value; }

/* Two words side by side: one store where two would do, for it is stores that bound how fast chains go by. */
static inline void fr_store_u32_pair(void *at, uint32_t first, uint32_t second)
{
    ((volatile struct fr_unaligned_u64 *)at)->value = first | (uint64_t)second << 32;
}

/* ... and the two halves of one. */
static inline void fr_store_u16_pair(void *at, uint32_t pair)
{
    ((volatile struct fr_unaligned_u32 *)at)->value = pair;
}

/* Ring fields: naturally aligned, checked when the ring is made. */
static inline void fr_store_u64(void *at, uint64_t value)
{
    *(volatile uint64_t *)at = value;
}

static inline void fr_store_u16(void *at, uint16_t value)
{
    __atomic_store_n((uint16_t *)at, value, __ATOMIC_RELAXED);
}

static inline void fr_store_u32(void *at, uint32_t value)
{
    __atomic_store_n((uint32_t *)at, value, __ATOMIC_RELAXED);
}

static inline uint16_t fr_load_acquire_u16(const void *at)
{
    return __atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE);
}

static inline uint64_t fr_load_acquire_u64(const void *at)
{
    return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
}

static inline void fr_store_release_u16(void *at, uint16_t value)
{
    __atomic_store_n((uint16_t *)at, value, __ATOMIC_RELEASE);
}

static inline void fr_store_release_u32(void *at, uint32_t value)
{
    __atomic_store_n((uint32_t *)at, value, __ATOMIC_RELEASE);
}

static inline void fr_store_release_u64(void *at, uint64_t value)
{
    __atomic_store_n((uint64_t *)at, value, __ATOMIC_RELEASE);
}

/* Whoever reads and clears the bit then finds what was written before it was set: so it is set again where it is. */
static inline void fr_set_bit(uint8_t *bits, uint64_t number)
{
    __atomic_fetch_or(bits + (number >> 3), (uint8_t)(1u << (number & 7)), __ATOMIC_SEQ_CST);
}

/* Keeps what a sane driver never causes out of the registers of what it always does. */
#define fr_unlikely(condition) __builtin_expect(!!(condition), 0)

static inline void fr_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#endif
