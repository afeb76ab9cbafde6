# The lock of those who run a loop's handlers, and of those who want none to run: in C, so that the loop's thread takes
# it without the GIL. First come, first served: a mutex alone would be had again by a loop that always has work before
# whoever waits for it has woken up. Its owner may take it again.

from acrn_dm.base.process._pthread cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_t, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
    pthread_self, pthread_t,
)

cdef extern from *:
    """
    static inline unsigned rl_peek(const unsigned *number) { return __atomic_load_n(number, __ATOMIC_RELAXED); }
    """
    unsigned rl_peek(const unsigned *number) noexcept nogil

cdef struct RunLock:
    pthread_mutex_t mutex     # for a few instructions at a time
    pthread_cond_t changed
    pthread_t owner           # while depth > 0
    unsigned depth            # how often the owner has it
    unsigned next             # the number that who comes next draws
    unsigned serving          # the number whose turn it is


cdef inline void run_lock_init(RunLock *lock) noexcept nogil:
    pthread_mutex_init(&lock.mutex, NULL)
    pthread_cond_init(&lock.changed, NULL)
    lock.depth = lock.next = lock.serving = 0


cdef inline void run_lock_destroy(RunLock *lock) noexcept nogil:
    pthread_cond_destroy(&lock.changed)
    pthread_mutex_destroy(&lock.mutex)


cdef inline bint run_lock_is_ours(RunLock *lock) noexcept nogil:
    return lock.depth > 0 and lock.owner == pthread_self()


# Take it if that needs no waiting.
cdef inline bint run_lock_try(RunLock *lock) noexcept nogil:
    cdef bint taken = False
    pthread_mutex_lock(&lock.mutex)
    if run_lock_is_ours(lock) or lock.next == lock.serving:
        if lock.depth == 0:
            lock.next += 1
            lock.owner = pthread_self()
        lock.depth += 1
        taken = True
    pthread_mutex_unlock(&lock.mutex)
    return taken


cdef inline void run_lock_take(RunLock *lock) noexcept nogil:
    cdef unsigned number
    pthread_mutex_lock(&lock.mutex)
    if not run_lock_is_ours(lock):
        number = lock.next
        lock.next += 1
        while lock.serving != number:
            pthread_cond_wait(&lock.changed, &lock.mutex)
        lock.owner = pthread_self()
    lock.depth += 1
    pthread_mutex_unlock(&lock.mutex)


cdef inline void run_lock_leave(RunLock *lock) noexcept nogil:
    pthread_mutex_lock(&lock.mutex)
    lock.depth -= 1
    if lock.depth == 0:
        lock.serving += 1
        if lock.serving != lock.next:
            pthread_cond_broadcast(&lock.changed)
    pthread_mutex_unlock(&lock.mutex)


# Between two handlers: let in whoever waits.
cdef inline void run_lock_yield(RunLock *lock) noexcept nogil:
    if lock.depth == 1 and rl_peek(&lock.next) != lock.serving + 1:
        run_lock_leave(lock)
        run_lock_take(lock)
