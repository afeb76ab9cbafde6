# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The sampler of a watch: it looks at rings that a back-end has, again and again, without the GIL.

While there is traffic it sleeps for as long as less than half a ring takes, within limits: a timer may cost tens of
microseconds of its processor's time, where that is a virtual one. When nothing has moved for some looks it waits for a
kick, whose eventfd it watches by edge and never reads; where a back-end wants none, a slow timer goes on.
"""

cimport cython
from acrn_dm._fastring cimport FrTally, RingTally, ft_sample, ft_wants_kick
from acrn_dm.base.events._poll cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN, POLLIN, epoll_create1, epoll_ctl,
    epoll_event, epoll_wait, eventfd, pollfd, ppoll,
)
from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as c_close, write as c_write

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET

cdef extern from * nogil:
    """
    #include <sched.h>
    #include <sys/prctl.h>
    #include <sys/resource.h>
    /* A look that comes late sees nothing of what was written over meanwhile; it takes a few microseconds, and a tenth
     * of the time at most. Where the host allows neither, it is a thread like any other. */
    static inline void come_first(void)
    {
        struct sched_param first = {.sched_priority = 1};
        prctl(PR_SET_TIMERSLACK, 1000UL);
        if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first) != 0)
            (void)setpriority(PRIO_PROCESS, 0, -19);
    }
    """
    void come_first() noexcept

cdef enum:
    MAX_EVENTS = 16
    LEAST_NS = 100000         # between two looks
    MOST_NS = 2000000         # ... while something moves, and no more than this for each entry of the smallest ring,
    ENTRY_NS = 4000           # so that it stands a burst that begins all at once
    SLOW_NS = 8000000         # ... where nothing does, and no kick would tell
    LATE_NS = 40000000        # an index goes round in this time at 1.6 million requests a second
    SHARES = 64               # of a ring; so many are to pass between two looks:
    WANTED_SHARES = 28
    GROWTH = 16               # a pause is longer than the one before by this part of it at most: traffic has bursts
    CALM = 8                  # looks that find nothing, in a row, before a kick is waited for
    LONG_CALM = 64
    FIRST_DOZE_MS = 4         # without a kick it looks all the same: a back-end may have begun to look by itself
    LAST_DOZE_MS = 250
    COST = 10                 # a pause is this many times what the look before took


cdef int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * 1000000000 + t.tv_nsec


cdef int64_t next_pause(int64_t pause, int64_t elapsed, uint32_t shares, uint32_t calm, int64_t most) noexcept nogil:
    """How long to sleep behind *pause*, when *shares* of a ring passed within *elapsed*; usually not longer than
    *most*.
    """
    if shares > 0:
        return max(<int64_t>LEAST_NS, min(elapsed * WANTED_SHARES // shares, pause + pause // GROWTH, most))
    return min(pause + pause // GROWTH, <int64_t>SLOW_NS if calm > LONG_CALM else most)


@cython.final
cdef class Sampler:
    """The sampler of *watched*: tallies, each with the eventfd of its queue's kick. Raises OSError."""

    def __cinit__(self, watched):
        cdef RingTally tally
        self._epoll = self._stop = -1
        self._most = MOST_NS
        self._owners = [tally for tally, _ in watched]
        self._tallies = <FrTally **>PyMem_Calloc(max(1, len(self._owners)), sizeof(FrTally *))
        self._kicks = <int *>PyMem_Calloc(max(1, len(self._owners)), sizeof(int))
        if self._tallies == NULL or self._kicks == NULL:
            raise MemoryError()
        for tally, kick_fd in watched:
            self._tallies[self._n], self._kicks[self._n] = &tally.tally, kick_fd
            self._n += 1
            self._most = max(<int64_t>LEAST_NS, min(self._most, <int64_t>ENTRY_NS * tally.tally.size))
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        self._stop = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self._epoll < 0 or self._stop < 0:
            PyErr_SetFromErrno(OSError)
        if not self.add(self._stop, EPOLLIN, BY_STOP) or not self.listen(True):  # what can't be waited for says so now
            PyErr_SetFromErrno(OSError)
        self.listen(False)

    def __dealloc__(self):
        self.close()
        PyMem_Free(self._tallies)
        PyMem_Free(self._kicks)

    cdef bint add(self, int fd, uint32_t events, uint64_t what) noexcept nogil:
        """Wake up by *fd*; whether the kernel does that."""
        cdef epoll_event event
        event.events, event.data.u64 = events, what
        return epoll_ctl(self._epoll, EPOLL_CTL_ADD, fd, &event) == 0

    cdef bint listen(self, bint on) noexcept nogil:
        """Wake up by kicks, or no more; whether the kernel tells them all. Each that is told costs its driver half a
        microsecond.
        """
        cdef uint32_t i
        cdef bint told = True
        for i in range(self._n):
            if on:
                told = self.add(self._kicks[i], <uint32_t>(EPOLLIN | EPOLLET), BY_KICK) and told
            else:
                epoll_ctl(self._epoll, EPOLL_CTL_DEL, self._kicks[i], NULL)
        self._listens = on and told
        return told

    def run(self):
        """Look until ``stop``, and once more then. On a thread of its own."""
        with nogil:
            come_first()
            self.go()

    def stop(self):
        """Have ``run`` come back. Any thread."""
        cdef uint64_t one = 1
        c_write(self._stop, &one, sizeof(one))

    def close(self):
        """Close both descriptors, when ``run`` has come back. Idempotent."""
        if self._epoll >= 0:
            c_close(self._epoll)
        if self._stop >= 0:
            c_close(self._stop)
        self._epoll = self._stop = -1

    cdef void go(self) noexcept nogil:
        cdef int64_t pause = LEAST_NS, last = now_ns(), cost = 0, now
        cdef uint32_t calm = 0, shares
        cdef int doze_ms = FIRST_DOZE_MS
        cdef Wakened by = BY_TIME
        while by != BY_STOP:
            if calm < CALM or not self.kicks_come():
                if self._listens:
                    self.listen(False)
                by = self.pause(max(pause, COST * cost))
            elif not self._listens:  # kicks until now are none to wait for; what they brought the next look sees
                by = self.doze(0) if self.listen(True) else self.pause(SLOW_NS)
                by = BY_TIME if by == BY_KICK else by
            else:
                by = self.doze(doze_ms)
                doze_ms = min(2 * doze_ms, <int>LAST_DOZE_MS)
                self.dozes += 1
                self.kicks += by == BY_KICK
            now = now_ns()
            shares = self.look(by != BY_KICK and now - last > LATE_NS)
            cost = now_ns() - now
            if shares > 0 or by == BY_KICK:  # a peer that only kicks does not have us look more often
                calm, doze_ms = 0, FIRST_DOZE_MS
            elif calm <= LONG_CALM:
                calm += 1
            pause = LEAST_NS if by == BY_KICK else next_pause(pause, now - last, shares, calm, self._most)
            last = now

    cdef uint32_t look(self, bint late) noexcept nogil:
        """Look at all rings; by how many shares of a ring the one moved that moved most, rounded up."""
        cdef uint32_t i, moved, most = 0
        for i in range(self._n):
            moved = ft_sample(self._tallies[i], late)
            most = max(most, (moved * SHARES + self._tallies[i].size - 1) // self._tallies[i].size)
        self.samples += 1
        return most

    cdef bint kicks_come(self) noexcept nogil:
        """Whether the drivers of all rings have been asked to kick."""
        cdef uint32_t i
        for i in range(self._n):
            if not ft_wants_kick(self._tallies[i]):
                return False
        return True

    cdef Wakened pause(self, int64_t ns) noexcept nogil:
        """Sleep for *ns*, whoever kicks."""
        cdef pollfd stop
        cdef timespec t
        stop.fd, stop.events = self._stop, POLLIN
        t.tv_sec, t.tv_nsec = ns // 1000000000, ns % 1000000000
        return BY_STOP if ppoll(&stop, 1, &t, NULL) > 0 else BY_TIME

    cdef Wakened doze(self, int ms) noexcept nogil:
        """Sleep for *ms* at most, until somebody kicks. The end waits until kicks that came before it are told."""
        cdef epoll_event[MAX_EVENTS] events
        cdef int i, n = epoll_wait(self._epoll, events, MAX_EVENTS, ms)
        for i in range(n):
            if events[i].data.u64 == BY_KICK:
                return BY_KICK
        return BY_STOP if n > 0 else BY_TIME
