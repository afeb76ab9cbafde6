# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Errors of a broken ring: the driver's faults are GuestErrors, the caller's ValueErrors."""

from libc.stdint cimport uint32_t, uint64_t

from acrn_dm.base.errors import GuestError

cdef dict GUEST_FAULTS = {
    FR_E_AVAIL_JUMP: "avail.idx is {index}, which is more than the queue size from {value}, the next to take",
    FR_E_HEAD: "available ring entry {index} names descriptor {value}, outside the table",
    FR_E_IN_FLIGHT: "available ring entry {index} names descriptor {value}, whose chain is still in flight",
    FR_E_NEXT: "descriptor {index}: next is {value}, outside its table",
    FR_E_TOO_LONG: "descriptor {index}: the chain goes on after {value} descriptors, so it loops or is too long",
    FR_E_ORDER: "descriptor {index}: device-readable after a device-writable one",
    FR_E_ADDRESS: "descriptor {index}: the buffer at gpa {value:#x} leaves RAM",
    FR_E_TOTAL: "descriptor {index}: a chain of {value} bytes, more than 2^32 - 1",
    FR_E_INDIRECT_OFF: "descriptor {index}: indirect, which was not negotiated",
    FR_E_INDIRECT_NESTED: "descriptor {index} of an indirect table is indirect itself",
    FR_E_INDIRECT_NEXT: "descriptor {index}: flags {value:#x} have both INDIRECT and NEXT",
    FR_E_INDIRECT_LEN: "descriptor {index}: indirect table of {value} bytes, not a positive multiple of 16",
    FR_E_INDIRECT_ADDRESS: "descriptor {index}: indirect table not in RAM at gpa {value:#x}",
    FR_E_PIECES: "descriptor {index}: the chain lies in more than {value} pieces of memory",
    FR_E_NOT_AVAILABLE: "descriptor {index}: a list goes on here, which flags {value:#x} do not make available",
    FR_E_ID_IN_FLIGHT: "descriptor {index}: buffer id {value}, whose chain is still in flight",
    FR_E_OVERRUN: "descriptor {index} is available again, while all {value} are available or in flight",
    FR_E_INDIRECT_LIST: "descriptor {index}: flags {value:#x} have INDIRECT in a list of descriptors",
}
cdef dict CALLER_FAULTS = {
    FR_E_ROOM: "the segment array is too small for one chain",
    FR_E_NOT_IN_FLIGHT: "the chain is not in flight",
    FR_E_NOT_LAST: "only the chains popped last can be given back, in the order they were popped",
}


cdef int raise_status(int status, uint32_t index, uint64_t value) except -1 with gil:
    if status in CALLER_FAULTS:
        raise ValueError(CALLER_FAULTS[status])
    raise GuestError(GUEST_FAULTS[status].format(index=index, value=value))
