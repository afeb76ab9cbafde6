# An epoll set with C handlers, which run without the GIL: what data planes in Cython ``cimport``.
#
# A handler runs on the thread that waits, one at a time, under the loop's run lock. It must come back, for who stops a
# queue (``IoLoop.held``, ``remove``) waits for the one that runs: so it does a bounded piece of work, sleeps nowhere,
# and asks for another turn with ``again``. It takes no GIL; what needs Python it hands over with ``ask``.

from acrn_dm.base.process._pthread cimport pthread_t
from acrn_dm.base.events._run_lock cimport RunLock
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.time cimport timespec

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLLIN
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int operation, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int most, int timeout)

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned initval, int flags)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
    enum:
        POLLIN
    int ppoll(pollfd *fds, unsigned long n, const timespec *timeout, const void *mask)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from * nogil:
    """
    #include <sys/syscall.h>
    #include <unistd.h>
    static inline int on_main_thread(void) { return syscall(SYS_gettid) == getpid(); }
    """
    bint on_main_thread() noexcept

# *events*: as epoll_wait reports them; 0 when it is the turn that ``again`` or ``at`` asked for.
ctypedef void (*PollHandler)(void *context, uint32_t events) noexcept nogil
# Look, while the loop polls in place of sleeping (see ``add_poller``): POLL_WORK if there was work, which is done.
# POLL_OWED: there is none, but what another thread has to do first, maybe on this CPU.
ctypedef int (*Poller)(void *context) noexcept nogil
# The loop begins (*polling*), or ends, to look at pollers. At the end: true if there was work, which is done.
ctypedef bint (*PollSwitch)(void *context, bint polling) noexcept nogil

cdef enum:
    POLL_NOTHING
    POLL_WORK
    POLL_OWED

cdef enum:
    MAX_POLLERS = 64          # those that come later are not polled for

cdef struct PollEntry:
    PollHandler handler       # NULL: none, or a Python one
    void *context
    uint32_t generation       # of the number's use: an event of the last user's file is not the next one's
    int64_t due               # when the handler is called without an event (``at``); 0: never
    bint wants_again
    bint asks

cdef struct PollerEntry:
    Poller poll
    PollSwitch switch
    void *context
    int64_t patience

# How long a loop looks at its pollers before it sleeps; all in ns.
cdef enum:
    LEAST_POLL_NS = 4000      # polling begins with this
    AWAY_NS = 4000            # a look that took longer was not alone on the CPU
    AWAY_LIMIT_NS = 500000    # of a turn with patience: then files have theirs, whoever had the CPU
    STRANGER_NS = 2000000     # longer than what is owed takes: half of a usual tick
    WARY_NS = 100000000
    SLOW_TRIES = 16

cdef struct PollPatience:
    int64_t limit             # the loop's; 0: it polls for the sake of pollers with patience only
    int64_t longest           # of the pollers'
    int64_t now               # how long it polls at the moment
    int64_t wary_until        # pollers with patience are not looked at: strangers take the CPU meanwhile
    uint32_t slow             # sleeps that were too long to poll for, but for one who gives way

cdef inline bint patience_polls(const PollPatience *patience, int64_t at) noexcept nogil:
    return patience.limit > 0 if patience.longest == 0 else at >= patience.wary_until

# It slept: poll longer if that would have found what woke it, else less. Who gives way may find it later than that,
# too, for time that others use is none of his: he tries now and then.
cdef inline void patience_adapt(PollPatience *patience, int64_t slept) noexcept nogil:
    cdef int64_t limit = max(patience.limit, patience.longest)
    if slept < limit:
        patience.now = min(max(<int64_t>LEAST_POLL_NS, 2 * patience.now), limit)
    elif patience.now > 0:
        patience.now = 0 if patience.now < 2 * LEAST_POLL_NS else patience.now // 2
    elif patience.longest > 0 and slept < AWAY_LIMIT_NS:
        patience.slow += 1
        patience.now = LEAST_POLL_NS if patience.slow % SLOW_TRIES == 0 else 0

# A look took from *before* to *now*: when polling ends that would have ended at *end*, and the turn at *turn_ends*.
cdef inline int64_t patience_end(
    PollPatience *patience, int64_t end, int64_t turn_ends, int64_t before, int64_t now,
) noexcept nogil:
    if patience.longest == 0 or now - before <= AWAY_NS:
        return end
    if now - before > STRANGER_NS:
        patience.wary_until = now + WARY_NS
    return max(end, min(end + now - before, turn_ends))


cdef class EventPoll:
    cdef int _fd
    cdef readonly int wake                # an eventfd that ends ``wait`` when it is written
    cdef RunLock _lock
    cdef PollEntry *_entries              # by descriptor
    cdef int _capacity
    cdef bint _more                       # some entry wants another turn
    cdef bint _asking                     # some entry asks for Python
    cdef int64_t _due                     # the earliest of the entries' times, or one before it; 0 without any
    cdef pthread_t _waiter                # the thread that waits, or did so last
    cdef bint _waits                      # some thread has
    cdef bint _has_signals                # it is the one that runs Python's handlers of signals
    cdef uint32_t _generation
    cdef dict _owners
    cdef PollerEntry _pollers[MAX_POLLERS]
    cdef int _n_pollers
    cdef PollPatience _patience
    cdef public int outstanding           # what C handlers have under way and will hear of by an event
    cdef readonly int ran                 # C handlers that the last ``wait`` ran
    cdef readonly uint64_t waits          # system calls that may have slept
    cdef readonly uint64_t returns        # times that ``wait`` came back to Python
    cdef readonly uint64_t interruptions  # times that it had Python look after signals
    cdef public int64_t busy_limit        # ns that polling goes on while it finds work: then files have their turn
    cdef readonly uint64_t looks          # times that polling began
    cdef readonly uint64_t found          # times that pollers had work

    # Call *handler* whenever *fd* is ready for *events* (EPOLLIN ...), until ``forget``. *owner* is kept alive so long;
    # *context* is usually the owner. Any thread. Raises OSError where *fd* can't be watched or is watched already.
    # With EPOLLET an eventfd need not be read: each write is an event.
    cdef int add_native(self, int fd, uint32_t events, PollHandler handler, void *context, object owner) except -1
    # Watch *fd*, which has a C handler, for other *events*; what it is ready for is an event anew, with EPOLLET, too.
    # From a handler, or under the run lock. False where that fails.
    cdef bint change(self, int fd, uint32_t events) noexcept nogil
    # When this returns, the handler is neither running (unless we are in it) nor will it run again. Any thread.
    cdef int remove_native(self, int fd) except -1
    # From a handler, or under the run lock: call the handler of *fd* again, after the others that are ready.
    cdef void again(self, int fd) noexcept nogil
    # From a handler, or under the run lock: call the handler of *fd* at *when* (ns of CLOCK_MONOTONIC), too. Once; the
    # last call for *fd* counts, and 0 takes it back.
    cdef void at(self, int fd, int64_t when) noexcept nogil
    # From a handler, or under the run lock: let Python's handler of *fd* be called (``IoLoop.attend``).
    cdef void ask(self, int fd) noexcept nogil
    # Look by *poll* before the loop sleeps. False if there are too many. Any thread. With *patience* (ns) any loop does
    # so, for that long at most; time in which others had the CPU does not count. What is owed has the CPU given away
    # between two looks. Where that takes too long, strangers want it: then the loop sleeps at once for some time.
    cdef bint add_poller(self, Poller poll, PollSwitch switch, void *context, int64_t patience=*)
    # When this returns, none of *context*'s is running, nor will be. Any thread.
    cdef void remove_poller(self, void *context)

    cdef void _hurry(self) noexcept nogil
    cdef int _control(self, int operation, int fd, uint32_t events, uint64_t data) except -1
    cdef int _grow(self, int fd) except -1
    cdef void _take(self)
    cdef bint _run(self, int fd, uint32_t generation, uint32_t events) noexcept nogil
    cdef int _run_again(self) noexcept nogil
    cdef void _ripen(self, int64_t now) noexcept nogil
    cdef bint _switch(self, bint polling) noexcept nogil
    cdef bint _look(self, int64_t deadline) noexcept nogil
    cdef void _go_on(self, bint owed) noexcept nogil
