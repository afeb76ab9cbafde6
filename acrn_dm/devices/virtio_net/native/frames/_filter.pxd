# The receive filter in C: which frames a driver wants, as ../../receive_filter.py says, which stays the reference.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    NET_FILTER_SLOTS = 4096   # of the table of addresses, of which half are used at most
    NET_FILTER_VLANS = 64     # words of 64 bits


cdef class FrameFilter:
    cdef bint promisc
    cdef bint any_station     # those that no table has, too
    cdef bint any_group
    cdef bint tags            # they are looked at
    cdef uint64_t[NET_FILTER_VLANS] vlans
    cdef uint64_t[NET_FILTER_SLOTS] known  # addresses that pass by themselves, by hash; 0: free

    # Whether the driver wants a frame of *length* bytes, 14 at least, that begins with *head*; the first 16 are looked
    # at.
    cdef bint passes(self, const uint8_t *head, uint32_t length) noexcept nogil
    cdef bint _knows(self, uint64_t address) noexcept nogil
    cdef int _learn(self, uint64_t address) except -1
