# What can be wrong with a ring, and the funnel from there to an exception.

from libc.stdint cimport uint32_t, uint64_t

cdef enum FrStatus:
    FR_OK = 0
    FR_EMPTY = 1              # nothing available
    # What a driver can do wrong; fault_index and fault_value of the ring tell where and what.
    FR_E_AVAIL_JUMP = -1      # avail.idx is further ahead than the queue is long
    FR_E_HEAD = -2            # an available ring entry names a descriptor outside the table
    FR_E_IN_FLIGHT = -3       # ... or the head of a chain the device still works on
    FR_E_NEXT = -4            # next points outside its table
    FR_E_TOO_LONG = -5        # more descriptors than its table has entries, which is a loop, or than one chain may have
    FR_E_ORDER = -6           # device-readable after device-writable
    FR_E_ADDRESS = -7         # buffer not in RAM
    FR_E_TOTAL = -8           # summed length does not fit 32 bits
    FR_E_INDIRECT_OFF = -9    # indirect descriptor without VIRTIO_F_INDIRECT_DESC
    FR_E_INDIRECT_NESTED = -10
    FR_E_INDIRECT_NEXT = -11  # INDIRECT and NEXT in one descriptor
    FR_E_INDIRECT_LEN = -12   # table length 0 or no multiple of 16
    FR_E_INDIRECT_ADDRESS = -13  # table not in RAM
    # ... in a packed ring
    FR_E_NOT_AVAILABLE = -17  # a list goes on with a descriptor that is not available
    FR_E_ID_IN_FLIGHT = -18   # the buffer id of a chain the device still works on
    FR_E_OVERRUN = -19        # available where the device has not yet returned what was there
    FR_E_INDIRECT_LIST = -20  # indirect descriptor behind others
    FR_E_PIECES = -21         # buffers that overlap lie in more pieces of memory than a batch has room for
    # What our own caller can do wrong.
    FR_E_ROOM = -14           # the caller's segment array is too small for even one chain
    FR_E_NOT_IN_FLIGHT = -15  # pushed twice, or never popped
    FR_E_NOT_LAST = -16       # given back, but not the last one popped

# GuestError for the driver's fault, at descriptor or entry *index*; ValueError for the caller's.
cdef int raise_status(int status, uint32_t index, uint64_t value) except -1 with gil
