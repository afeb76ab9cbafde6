# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""An epoll set whose files have handlers in C, which run without the GIL, or in Python.

``wait`` runs the C handlers, again and again, and comes back with what Python has to do. Each time the files with C
handlers and those with Python handlers are ready together both get their turn, so neither can starve the other. Who
wants no handler to run takes the run lock (``take``), first come, first served: he waits for one handler at most.
"""

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from acrn_dm.base.process._pthread cimport pthread_self
from acrn_dm.base.events._run_lock cimport (
    run_lock_destroy, run_lock_init, run_lock_leave, run_lock_take, run_lock_try, run_lock_yield,
)
from libc.errno cimport EBADF, EEXIST, EINTR, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as c_close, read as c_read, write as c_write

cdef enum:
    MAX_EVENTS = 64           # of one look
    MAX_ROUNDS = 1024         # of C handlers alone, before Python may look after signals
    NS_PER_MS = 1000000
    FINE_NS = 10000000        # waits shorter than this are not rounded up to a millisecond, as epoll_wait does
    BUSY_NS = 50000           # the first ``busy_limit``
    FOREVER = -1
    GENERATIONS = 0x3FFFFFFF

cdef uint64_t NATIVE = 1ULL << 63   # in an event's data: generation and descriptor of a C handler follow
cdef uint64_t WAKE = 1ULL << 62


cdef int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * 1000000000 + t.tv_nsec


cdef class EventPoll:
    """The set, and an eventfd that wakes who waits. ``wait`` belongs to one thread at a time."""

    def __cinit__(self):
        run_lock_init(&self._lock)
        self.busy_limit = BUSY_NS
        self._fd = self.wake = -1
        self._owners = {}
        self._fd = epoll_create1(EPOLL_CLOEXEC)
        self.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self._fd < 0 or self.wake < 0:
            PyErr_SetFromErrno(OSError)
        self._control(EPOLL_CTL_ADD, self.wake, EPOLLIN, WAKE)

    def __dealloc__(self):
        self.close()
        free(self._entries)
        run_lock_destroy(&self._lock)

    def close(self):
        """Close both descriptors; nothing is watched any more. Idempotent."""
        if self._fd >= 0:
            c_close(self._fd)
        if self.wake >= 0:
            c_close(self.wake)
        self._fd = self.wake = -1

    def register(self, int fd, uint32_t events):
        """Let ``wait`` report *fd* when it is ready for *events*. Raises OSError."""
        self._control(EPOLL_CTL_ADD, fd, events, <uint64_t>fd)

    def modify(self, int fd, uint32_t events):
        """Change what *fd* is watched for. Raises OSError."""
        cdef uint64_t data = <uint64_t>fd
        if fd < self._capacity and self._entries[fd].handler != NULL:
            data |= NATIVE | (<uint64_t>self._entries[fd].generation << 32)
        self._control(EPOLL_CTL_MOD, fd, events, data)

    def unregister(self, int fd):
        """Watch *fd* no more. Raises OSError."""
        if not self.remove_native(fd):
            self._control(EPOLL_CTL_DEL, fd, 0, 0)

    def is_native(self, int fd):
        """Whether *fd* has a C handler."""
        return 0 <= fd < self._capacity and self._entries[fd].handler != NULL

    def take(self):
        """Take the run lock: until ``leave`` no handler runs but on this thread."""
        self._take()

    def leave(self):
        """Give the run lock back."""
        run_lock_leave(&self._lock)

    @property
    def poll_limit(self):
        """For how many nanoseconds pollers are looked at before the thread sleeps, at most; 0 for none."""
        return self._patience.limit

    @poll_limit.setter
    def poll_limit(self, int64_t limit):
        self._patience.limit = limit
        self._patience.now = min(self._patience.now, max(limit, self._patience.longest))

    def wait(self, timeout, bint stay):
        """Wait up to *timeout* seconds (None: for ever), run C handlers, and return (fd, events) of what Python has to
        handle; events are 0 where a C handler asks for it. Without *stay* it returns as well once C handlers ran.
        """
        cdef epoll_event[MAX_EVENTS] events
        cdef int64_t deadline = FOREVER
        cdef int n, i
        if timeout is not None:
            deadline = now_ns() + <int64_t>(timeout * 1e9) if timeout > 0 else 0
        self.ran = 0
        if not self._waits or self._waiter != pthread_self():
            self._waiter, self._waits, self._has_signals = pthread_self(), True, on_main_thread()
        while True:
            with nogil:
                n = rounds(self, events, deadline, stay)
            if n >= 0:
                break
            if n != -EINTR:
                raise ValueError("the poll is closed") if n == -EBADF else OSError(-n, "epoll_wait")
            self.interruptions += 1
            PyErr_CheckSignals()
        self.returns += 1
        ready = [(<int>events[i].data.u64, events[i].events) for i in range(n)]
        if self._asking:
            self._take()
            self._asking = False
            for i in range(self._capacity):
                if self._entries[i].asks:
                    self._entries[i].asks = False
                    ready.append((i, 0))
            run_lock_leave(&self._lock)
        return ready

    cdef int _control(self, int operation, int fd, uint32_t events, uint64_t data) except -1:
        cdef epoll_event event
        if self._fd < 0:
            raise ValueError("the poll is closed")
        event.events, event.data.u64 = events, data
        if epoll_ctl(self._fd, operation, fd, &event) < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    cdef void _take(self):
        if not run_lock_try(&self._lock):
            with nogil:
                run_lock_take(&self._lock)

    cdef int _grow(self, int fd) except -1:
        cdef int capacity = max(64, 2 * fd)
        cdef PollEntry *entries
        if fd < self._capacity:
            return 0
        entries = <PollEntry *>realloc(self._entries, capacity * sizeof(PollEntry))
        if entries == NULL:
            raise MemoryError()
        memset(&entries[self._capacity], 0, (capacity - self._capacity) * sizeof(PollEntry))
        self._entries, self._capacity = entries, capacity
        return 0

    cdef int add_native(self, int fd, uint32_t events, PollHandler handler, void *context, object owner) except -1:
        cdef PollEntry *entry
        if fd < 0:
            raise OSError(EBADF, "no descriptor")
        self._take()
        try:
            self._grow(fd)
            entry = &self._entries[fd]
            if entry.handler != NULL:
                raise OSError(EEXIST, "it is watched already")
            self._generation = (self._generation + 1) & GENERATIONS
            self._control(EPOLL_CTL_ADD, fd, events, NATIVE | (<uint64_t>self._generation << 32) | <uint64_t>fd)
            memset(entry, 0, sizeof(PollEntry))
            entry.handler, entry.context, entry.generation = handler, context, self._generation
            self._owners[fd] = owner
        finally:
            run_lock_leave(&self._lock)
        return 0

    cdef bint change(self, int fd, uint32_t events) noexcept nogil:
        cdef epoll_event event
        event.events = events
        event.data.u64 = NATIVE | (<uint64_t>self._entries[fd].generation << 32) | <uint64_t>fd
        return epoll_ctl(self._fd, EPOLL_CTL_MOD, fd, &event) == 0

    cdef int remove_native(self, int fd) except -1:
        """Returns whether it had a C handler."""
        if not 0 <= fd < self._capacity or self._entries[fd].handler == NULL:
            return False
        self._take()
        try:
            memset(&self._entries[fd], 0, sizeof(PollEntry))
            _owner = self._owners.pop(fd, None)  # let go of when the lock is free
            self._control(EPOLL_CTL_DEL, fd, 0, 0)
        finally:
            run_lock_leave(&self._lock)
        return True

    cdef void again(self, int fd) noexcept nogil:
        self._entries[fd].wants_again = True
        self._more = True
        self._hurry()

    cdef void at(self, int fd, int64_t when) noexcept nogil:
        self._entries[fd].due = when
        if when > 0 and (self._due == 0 or when < self._due):
            self._due = when
            self._hurry()

    cdef void ask(self, int fd) noexcept nogil:
        self._entries[fd].asks = True
        self._asking = True
        self._hurry()

    cdef void _hurry(self) noexcept nogil:
        """Wake the thread that waits, if that is another: who holds the loop may ask for something, too."""
        cdef uint64_t one = 1
        if self._waits and self._waiter != pthread_self():
            c_write(self.wake, &one, sizeof(one))

    cdef bint add_poller(self, Poller poll, PollSwitch switch, void *context, int64_t patience=0):
        cdef bint room
        self._take()
        room = self._n_pollers < MAX_POLLERS
        if room:
            self._pollers[self._n_pollers].poll = poll
            self._pollers[self._n_pollers].switch = switch
            self._pollers[self._n_pollers].context = context
            self._pollers[self._n_pollers].patience = patience
            self._n_pollers += 1
            self._patience.longest = max(self._patience.longest, patience)
        run_lock_leave(&self._lock)
        return room

    cdef void remove_poller(self, void *context):
        cdef int i
        cdef int kept = 0
        self._take()
        self._patience.longest = 0
        for i in range(self._n_pollers):
            if self._pollers[i].context != context:
                self._pollers[kept] = self._pollers[i]
                self._patience.longest = max(self._patience.longest, self._pollers[i].patience)
                kept += 1
        self._n_pollers = kept
        run_lock_leave(&self._lock)

    cdef bint _run(self, int fd, uint32_t generation, uint32_t events) noexcept nogil:
        """Run the handler of *fd*; false if it was removed meanwhile."""
        cdef PollEntry *entry = &self._entries[fd]
        if fd >= self._capacity or entry.handler == NULL or entry.generation != generation:
            return False
        entry.handler(entry.context, events)
        return True

    cdef int _run_again(self) noexcept nogil:
        """Run those that asked for another turn; each once, what they ask for now waits for the next look."""
        cdef int fd
        cdef int ran = 0
        self._more = False
        for fd in range(self._capacity):
            if self._entries[fd].wants_again:
                self._entries[fd].wants_again = False
                ran += self._run(fd, self._entries[fd].generation, 0)
                run_lock_yield(&self._lock)
        return ran

    cdef void _ripen(self, int64_t now) noexcept nogil:
        """Those whose time has come have another turn; with the lock."""
        cdef int fd
        self._due = 0
        for fd in range(self._capacity):
            if 0 < self._entries[fd].due <= now:
                self._entries[fd].due = 0
                self._entries[fd].wants_again = self._more = True
            elif self._entries[fd].due > 0 and (self._due == 0 or self._entries[fd].due < self._due):
                self._due = self._entries[fd].due

    cdef bint _switch(self, bint polling) noexcept nogil:
        cdef int i
        cdef bint found = False
        for i in range(self._n_pollers):
            if self._pollers[i].switch(self._pollers[i].context, polling):
                found = True
        return found

    cdef bint _look(self, int64_t deadline) noexcept nogil:
        """Look at the pollers for some time, on while they have work (``busy_limit``); true if there was any."""
        cdef int64_t before, now = now_ns()
        cdef int64_t turn_ends = now + (self.busy_limit if self._patience.longest == 0 else <int64_t>AWAY_LIMIT_NS)
        cdef int64_t end = now + self._patience.now
        cdef bint found = False
        cdef int i, seen
        self.looks += 1
        run_lock_take(&self._lock)
        self._switch(True)
        while True:
            seen = POLL_NOTHING
            for i in range(self._n_pollers):
                seen |= self._pollers[i].poll(self._pollers[i].context)
            before, now = now, now_ns()
            end = patience_end(&self._patience, end, turn_ends, before, now)
            if seen & POLL_WORK:
                found = True
                self.found += 1
                end = now + self._patience.now
            if now >= end or (found and now >= turn_ends) or 0 <= deadline <= now or self._more or self._asking:
                break
            self._go_on(seen == POLL_OWED)
        if self._switch(False):
            found = True
        run_lock_leave(&self._lock)
        return found

    cdef void _go_on(self, bint owed) noexcept nogil:
        if not owed:
            run_lock_yield(&self._lock)
            return
        run_lock_leave(&self._lock)
        sched_yield()
        run_lock_take(&self._lock)


cdef int sleep(EventPoll self, epoll_event *events, int64_t deadline) noexcept nogil:
    """Sleep until *deadline* at most; returns how many are ready, or a negative errno.

    What io_uring has completed interrupts the thread that asked for it, just as a signal does. Only on the main thread
    does that concern Python.
    """
    cdef int n
    while True:
        n = nap(self, events, deadline)
        if n != -EINTR or self._has_signals:
            return n


cdef int nap(EventPoll self, epoll_event *events, int64_t deadline) noexcept nogil:
    """epoll_wait until *deadline*, in nanoseconds.

    It counts whole milliseconds and rounds up: too long for queues that are polled. An epoll descriptor is readable
    when something on it is ready, and ppoll counts nanoseconds.
    """
    cdef int64_t left = FOREVER if deadline == FOREVER else deadline
    cdef int n
    cdef pollfd watched
    cdef timespec patience
    if deadline > 0:
        left = max(<int64_t>0, deadline - now_ns())
    if 0 < left < FINE_NS:
        watched.fd, watched.events = self._fd, POLLIN
        patience.tv_sec, patience.tv_nsec = 0, left
        self.waits += 1
        if ppoll(&watched, 1, &patience, NULL) < 0:
            return -errno
        left = 0
    self.waits += left != 0
    n = epoll_wait(self._fd, events, MAX_EVENTS, <int>((left + NS_PER_MS - 1) // NS_PER_MS) if left > 0 else <int>left)
    return -errno if n < 0 else n


cdef int look_and_sleep(EventPoll self, epoll_event *events, int64_t deadline) noexcept nogil:
    cdef int64_t began
    cdef int n
    if self._more or self._asking or deadline == 0:
        return sleep(self, events, 0)
    if self._due > 0 and (deadline == FOREVER or self._due < deadline):
        deadline = self._due
    began = now_ns()
    if self._n_pollers == 0 or not patience_polls(&self._patience, began):
        return sleep(self, events, deadline)
    if self._patience.now > 0 and self._look(deadline):
        self.ran += 1
        return sleep(self, events, 0)
    n = sleep(self, events, deadline)
    patience_adapt(&self._patience, now_ns() - began)
    return n


cdef int run_native(EventPoll self, epoll_event *events, int n, bint *woken) noexcept nogil:
    """Run the C handlers among *n* events, and those that asked for another turn; returns how many are Python's, which
    are moved to the front.
    """
    cdef bint taken = False
    cdef int n_python = 0
    cdef uint64_t data
    cdef uint64_t count
    cdef bint more
    cdef int i
    if self._due > 0 and now_ns() >= self._due:
        run_lock_take(&self._lock)
        taken = True
        self._ripen(now_ns())
    more = self._more
    for i in range(n):
        data = events[i].data.u64
        if data & NATIVE:
            if taken:
                run_lock_yield(&self._lock)
            else:
                run_lock_take(&self._lock)
                taken = True
            self.ran += self._run(<int><uint32_t>data, <uint32_t>(data >> 32) & GENERATIONS, events[i].events)
        elif data & WAKE:
            woken[0] = True
            c_read(self.wake, &count, sizeof(count))
        else:
            events[n_python] = events[i]
            n_python += 1
    if more:
        if not taken:
            run_lock_take(&self._lock)
            taken = True
        self.ran += self._run_again()
    if taken:
        run_lock_leave(&self._lock)
    return n_python


cdef int rounds(EventPoll self, epoll_event *events, int64_t deadline, bint stay) noexcept nogil:
    """Look and run C handlers until there is something for Python; returns how many events are, or a negative errno."""
    cdef bint woken = False
    cdef int n, n_python, _round
    for _round in range(MAX_ROUNDS):
        n = look_and_sleep(self, events, deadline)
        if n < 0:
            return n
        n_python = run_native(self, events, n, &woken)
        if n_python > 0 or woken or self._asking:
            return n_python
        if self.ran > 0 and not stay:
            return 0
        if deadline == 0 or (deadline > 0 and now_ns() >= deadline):
            return 0
    return 0
