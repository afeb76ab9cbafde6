# The hash of a received frame (Toeplitz) and the queue pair that it goes to, for data planes in C and in Python.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    NET_HASH_KEY = 40         # bytes of the longest key: 32 bits behind the longest input
    NET_HASH_INPUT = 36       # bytes of the longest input: two IPv6 addresses and two ports
    NET_HASH_TABLE = 128      # entries of the longest indirection table
    NET_HASH_LOOKED_AT = 512  # bytes of a frame that are looked at; what is behind them is as if it were cut off


cdef class FrameHash:
    cdef readonly uint32_t types          # enabled hash types, bits of 5.1.6.4.3.1
    cdef readonly bytes key
    cdef readonly bint steers             # by the table; else the kernel's choice of a queue stays
    cdef uint16_t unclassified            # the pair of frames that have no hash
    cdef uint32_t mask
    cdef uint16_t[NET_HASH_TABLE] table   # pairs
    cdef uint32_t[2 * NET_HASH_INPUT][16] products  # what each value of each half byte of the input adds to the hash

    # The hash of *frame*, of *length* bytes from the Ethernet header on, of which NET_HASH_LOOKED_AT have to be there;
    # *report* is its type as hash_report says it, 0 without a hash.
    cdef uint32_t of(self, const uint8_t *frame, uint32_t length, uint16_t *report) noexcept nogil
    # The pair that a frame with this hash goes to, where the table ``steers``.
    cdef inline uint16_t pair_of(self, uint32_t value, uint16_t report) noexcept nogil:
        return self.table[value & self.mask] if report else self.unclassified

    cdef uint32_t toeplitz(self, const uint8_t *data, uint32_t n) noexcept nogil
