# What is known of an image's contents, for Python and for code without the GIL. Threads: any.

from acrn_dm.base.process._pthread cimport pthread_cond_t, pthread_mutex_t
from libc.stdint cimport uint64_t

cdef struct BlkStanding:
    int fd
    uint64_t end              # where the visible part of the file ends
    bint is_block_device
    bint cut                  # the file has been shorter than that
    int lost                  # errno of the flush that failed, 0 if none has
    # Beginnings and ends of changes that wait for a flush; those up to *stable* are on the medium.
    uint64_t changes
    uint64_t stable
    bint syncing              # a flush is under way
    uint64_t punches          # times that ranges may have been made holes
    pthread_mutex_t lock
    pthread_cond_t synced

# Whether the file has had its length all the time.
cdef bint blk_whole(BlkStanding *standing) noexcept nogil
# A change that waits for a flush begins or ends.
cdef void blk_changes(BlkStanding *standing) noexcept nogil
# A range may be a hole from now on.
cdef void blk_punched(BlkStanding *standing) noexcept nogil
# Begin a flush; false while another is under way, whose failure would be told to one of the two only.
cdef bint blk_try_sync(BlkStanding *standing, uint64_t *before) noexcept nogil
# It has ended, with an errno or 0.
cdef void blk_synced(BlkStanding *standing, uint64_t before, int err) noexcept nogil
# A write that waited for the medium has failed: that may be the only word of another write's loss.
cdef void blk_durable_failed(BlkStanding *standing, int err) noexcept nogil


cdef class Standing:
    cdef BlkStanding state
