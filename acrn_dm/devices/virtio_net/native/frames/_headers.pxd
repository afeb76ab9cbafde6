# Packet headers judged in C: the answers of ../../request.py, the reference, which has the table of the fields.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    NET_LONG_HEADER = 12      # with num_buffers, at NET_NUM_BUFFERS
    NET_MAX_HEADER = 20       # with a hash report
    NET_NUM_BUFFERS = 10
    NET_MIN_FRAME = 14
    NET_MAX_FRAME = 65553     # 14 + 4 + 65535
    NET_GSO_NONE = 0
    NET_GSO_ECN = 0x80

# Bits of the features, as request.py has them.
cdef enum:
    NET_GUEST_OFFLOADS = 0x382
    NET_MRG_RXBUF = 0x8000

# What the interface gets in *clean* for the *header* bytes in *given*, which the guest wrote before so many bytes of
# *frame*; false: drop the frame.
cdef bint net_clean_header(
    const uint8_t *given, uint32_t header, uint32_t frame, uint64_t features, uint8_t *clean,
) noexcept nogil
# The flags that the guest gets with a header of the interface's; -1: it can't take the frame as it is.
cdef int net_receive_flags(const uint8_t *header, uint64_t features) noexcept nogil
