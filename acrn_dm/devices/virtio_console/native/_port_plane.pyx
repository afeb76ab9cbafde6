# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The planes of a console's port: bytes from chains to a descriptor and back, without Python while all goes well."""

from libc.errno cimport EAGAIN, EINTR, errno
from posix.unistd cimport close as c_close

from acrn_dm._fastring cimport FrBatch, FrChain, FrSegment
from acrn_dm.virtio.native._plane cimport Plane

import os

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET
        EPOLLIN

cdef extern from "<sys/uio.h>" nogil:
    ssize_t readv(int fd, const FrSegment *segments, int count)
    ssize_t writev(int fd, const FrSegment *segments, int count)

cdef enum:
    CHAINS = 32               # of a batch to the host
    BUFFERS = 8               # of a batch to the guest: what finds no input is given back
    SEGMENTS = 1024           # IOV_MAX
    INTERRUPTED = 16          # times that a signal may come between


cdef class PortPlane(Plane):
    """The base of both. It begins in Python's hands; *pump*, without arguments, is called on the loop when Python gets
    the ring, or, after ``arm``, when there is a chain.
    """

    def __cinit__(self, pump, *_):
        self.pump = pump
        self.fd = -1
        self.by_python = True

    @property
    def live(self):
        """Whether the ring may be given back: the plane has started, and neither stopped nor failed."""
        return self.running

    def start(self, ring, poll, counters, **settings):
        """As a plane's; ``pump`` is called soon."""
        Plane.start(self, ring, poll, counters, **settings)
        poll.take()
        self.hand_over()
        poll.leave()

    def asked(self):
        """As a plane's; what is handed over is seen to first."""
        if self.handing:
            self.handing = False
            self.pump()
        return Plane.asked(self)

    def arm(self):
        """Python has the ring and has emptied it: ``pump`` is to be called when there is more. With the loop held."""
        if self.by_python:
            self.armed = True
            self.look()

    def take(self):
        """Python has the ring from now on. With the loop held. Returns how many bytes of the next chain are written
        already. Idempotent.
        """
        self.by_python, self.armed, self.handing = True, False, False
        self.fd = -1
        return 0

    cdef void hand_over(self) noexcept nogil:
        self.by_python, self.armed, self.handing = True, False, True
        self.poll.ask(self.kick_fd)

    cdef uint32_t room(self) noexcept nogil:
        if self.by_python:
            return 1 if self.armed else 0
        return self.ready_for()

    cdef int handle(self, FrBatch *batch) noexcept nogil:
        if self.by_python:
            self.hand_over()
            return 0
        return self.move(batch)

    cdef int move(self, FrBatch *batch) noexcept nogil:
        return 0

    cdef uint32_t ready_for(self) noexcept nogil:
        return 0


cdef class TxPlane(PortPlane):
    """The plane of what the guest sends: each chain with one ``writev``, or thrown away while nobody is there. What the
    host does not take whole at once is Python's.
    """

    def go(self, int fd):
        """Write to *fd*, -1 for nobody, from the next chain on. With the loop held."""
        self.fd = fd
        self.by_python = False
        self.look()

    def take(self):
        """See ``PortPlane``."""
        PortPlane.take(self)
        written, self.written = self.written, 0
        return written

    cdef uint32_t ready_for(self) noexcept nogil:
        return CHAINS

    cdef int move(self, FrBatch *batch) noexcept nogil:
        cdef uint32_t i
        for i in range(batch.n_chains):
            if self.fd < 0:
                self.discarded += batch.chains[i].out_bytes
            elif not self._write(&batch.chains[i]):
                self.hand_over()
                return <int>i
            self.complete(batch.chains[i].head, 0)
        return <int>batch.n_chains

    cdef bint _write(self, FrChain *chain) noexcept nogil:
        """Whether all of it went; else ``written`` says how much. Why not, Python finds out when it tries."""
        cdef ssize_t n = -1
        cdef int _again
        if chain.out_bytes == 0:
            return True
        for _again in range(INTERRUPTED):
            n = writev(self.fd, chain.segments, <int>min(chain.n_out, <uint32_t>SEGMENTS))
            if n >= 0 or errno != EINTR:
                break
        self.written = <uint32_t>n if n > 0 else 0
        if self.written < chain.out_bytes:
            return False
        self.written = 0
        return True


cdef class RxPlane(PortPlane):
    """The plane of what the guest receives: each buffer is filled by one ``readv``. The end of the input, and errors,
    are Python's.
    """

    def __cinit__(self, *_):
        self.watched = -1

    def __dealloc__(self):
        if self.watched >= 0:
            c_close(self.watched)

    def go(self, int fd):
        """Read from *fd* from now on. With the loop held. Raises PermissionError for a file that is never waited for.

        A duplicate is watched, by edges: the descriptor itself may be watched already, for other things.
        """
        self._unwatch()
        duplicate = os.dup(fd)
        try:
            self.poll.add_native(duplicate, EPOLLIN | EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_input,
                                 <void *>self, self)
        except BaseException:
            os.close(duplicate)
            raise
        self.fd, self.watched = fd, duplicate
        self.waiting = self.by_python = False
        self.look()

    def take(self):
        """See ``PortPlane``."""
        self._unwatch()
        self.waiting = False
        return PortPlane.take(self)

    def stop(self):
        """As a plane's."""
        self._unwatch()
        PortPlane.stop(self)

    def _unwatch(self):
        if self.watched >= 0:
            self.poll.remove_native(self.watched)
            os.close(self.watched)
            self.watched = -1

    cdef uint32_t ready_for(self) noexcept nogil:
        return 0 if self.waiting or self.watched < 0 else BUFFERS

    cdef int move(self, FrBatch *batch) noexcept nogil:
        cdef uint32_t i
        cdef ssize_t n = 0
        cdef FrChain *chain
        for i in range(batch.n_chains):
            chain = &batch.chains[i]
            if chain.in_bytes > 0:
                n = readv(self.fd, chain.segments + chain.n_out, <int>min(chain.n_in, <uint32_t>SEGMENTS))
                if n < 0 and errno == EAGAIN:
                    self.waiting = True
                    return <int>i
                if n <= 0:
                    self.hand_over()
                    return <int>i
            self.complete(chain.head, <uint32_t>n if chain.in_bytes > 0 else 0)
        return <int>batch.n_chains


cdef void _input(RxPlane self, uint32_t events) noexcept nogil:
    self.waiting = False
    self.serve()
