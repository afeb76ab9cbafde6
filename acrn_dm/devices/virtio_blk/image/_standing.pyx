# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The standing of an image: whether it was cut, whether a flush has failed, which changes no flush has followed.

``trust`` says what follows from it. It is here in C because requests are also executed without the GIL.
"""

from acrn_dm.base.process._pthread cimport (
    pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_wait, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from libc.errno cimport EDQUOT, ENOSPC
from libc.stdint cimport int64_t, uint64_t

cdef extern from "<errno.h>" nogil:
    enum:
        ECANCELED

cdef extern from "<unistd.h>" nogil:
    int64_t lseek(int fd, int64_t offset, int whence)
    enum:
        SEEK_END

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, void *argument)

cdef extern from "<sys/vfs.h>" nogil:
    struct c_statfs "statfs":
        long f_type
    int fstatfs(int fd, c_statfs *system)

cdef extern from "<linux/magic.h>" nogil:
    enum:
        TMPFS_MAGIC
        RAMFS_MAGIC

cdef extern from "<linux/fs.h>" nogil:
    enum:
        BLKGETSIZE64


cdef int64_t size_of(const BlkStanding *standing) noexcept nogil:
    """The file's length now, or -1."""
    cdef uint64_t size
    if standing.is_block_device:  # whose lseek waits for a discard under way
        return <int64_t>size if ioctl(standing.fd, BLKGETSIZE64, &size) == 0 else -1
    return lseek(standing.fd, 0, SEEK_END)  # nothing here uses the position it sets


cdef bint blk_whole(BlkStanding *standing) noexcept nogil:
    cdef int64_t size
    if not standing.cut:
        size = size_of(standing)
        if size >= 0 and <uint64_t>size < standing.end:
            standing.cut = True
    return not standing.cut


cdef void blk_changes(BlkStanding *standing) noexcept nogil:
    pthread_mutex_lock(&standing.lock)
    standing.changes += 1
    pthread_mutex_unlock(&standing.lock)


cdef void blk_punched(BlkStanding *standing) noexcept nogil:
    pthread_mutex_lock(&standing.lock)
    standing.punches += 1
    pthread_mutex_unlock(&standing.lock)


cdef bint blk_try_sync(BlkStanding *standing, uint64_t *before) noexcept nogil:
    cdef bint ours
    pthread_mutex_lock(&standing.lock)
    ours = not standing.syncing
    if ours:
        standing.syncing = True
        before[0] = standing.changes
    pthread_mutex_unlock(&standing.lock)
    return ours


cdef void blk_synced(BlkStanding *standing, uint64_t before, int err) noexcept nogil:
    pthread_mutex_lock(&standing.lock)
    standing.syncing = False
    if err == 0:
        standing.stable = max(standing.stable, before)
    elif err != ECANCELED and standing.lost == 0:
        standing.lost = err
    pthread_cond_signal(&standing.synced)
    pthread_mutex_unlock(&standing.lock)


cdef void blk_durable_failed(BlkStanding *standing, int err) noexcept nogil:
    pthread_mutex_lock(&standing.lock)
    if standing.changes != standing.stable and err not in (ENOSPC, EDQUOT, ECANCELED) and standing.lost == 0:
        standing.lost = err
    pthread_mutex_unlock(&standing.lock)


cdef class Standing:
    """The standing of the image open as *fd*, whose visible part ends at byte *end*."""

    def __cinit__(self, int fd, uint64_t end, bint is_block_device):
        self.state.fd = fd
        self.state.end = end
        self.state.is_block_device = is_block_device
        pthread_mutex_init(&self.state.lock, NULL)
        pthread_cond_init(&self.state.synced, NULL)

    def __dealloc__(self):
        pthread_cond_destroy(&self.state.synced)
        pthread_mutex_destroy(&self.state.lock)

    @property
    def cut(self):
        """Whether the file has been shorter than it was when it was opened."""
        return bool(self.state.cut)

    @cut.setter
    def cut(self, bint value):
        self.state.cut = value

    @property
    def lost(self):
        """The errno that a flush failed with; 0 if none has."""
        return self.state.lost

    @property
    def volatile(self):
        """Whether changes have been made that no flush has followed yet."""
        return self.state.changes != self.state.stable

    def change(self):
        """A change that waits for a flush begins, or ends."""
        blk_changes(&self.state)

    def punched(self):
        """A range may be a hole from now on."""
        blk_punched(&self.state)

    def durable_failed(self, int err):
        """A write that waited for the medium has failed with *err*: perhaps the only word of another write's loss."""
        blk_durable_failed(&self.state, err)

    @property
    def in_memory(self):
        """Whether all of the file is in memory, so that nothing waits for a medium: tmpfs and its kind."""
        cdef c_statfs system
        if self.state.is_block_device or fstatfs(self.state.fd, &system) != 0:
            return False
        return <unsigned long>system.f_type in (TMPFS_MAGIC, RAMFS_MAGIC)

    def begin_sync(self):
        """Wait until no other flush is under way, and begin one; returns what ``end_sync`` wants to know."""
        cdef uint64_t before
        with nogil:
            pthread_mutex_lock(&self.state.lock)
            while self.state.syncing:
                pthread_cond_wait(&self.state.synced, &self.state.lock)
            self.state.syncing = True
            before = self.state.changes
            pthread_mutex_unlock(&self.state.lock)
        return before

    def end_sync(self, uint64_t before, int err):
        """The flush has ended, with an errno or 0."""
        blk_synced(&self.state, before, err)
