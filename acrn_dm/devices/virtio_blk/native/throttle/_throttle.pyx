# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Leaky buckets with bursts, which count as QEMU's do (its ``util/throttle.c``), so that the same options do the same.

A request is poured into its buckets whole, and may begin when none of them overflows but for itself: a large one passes
and has the next ones wait. Without a burst a bucket is as large as a tenth of a second's units; with one as what the
burst may move, and a second bucket keeps the burst at its rate if that may last longer than a second.
"""

from acrn_dm.base.process._pthread cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint64_t

cdef double NS = 1e9
cdef double FOR_EVER = 1e9    # seconds that the clock's nanoseconds have room for
cdef double AT_ONCE = 0.1     # seconds' worth of units that a bucket takes without a burst


cdef inline double leaked(double level, double lost) noexcept nogil:
    return level - lost if level > lost else 0.0


cdef inline double seconds_over(double level, double size, double rate) noexcept nogil:
    return (level - size) / rate if level > size else 0.0


cdef double wait_of(const BlkBucket *bucket) noexcept nogil:
    """Seconds until the bucket overflows no more."""
    cdef double wait
    if bucket.rate == 0:
        return 0.0
    if bucket.burst == 0:
        return seconds_over(bucket.level, bucket.rate * AT_ONCE, bucket.rate)
    wait = seconds_over(bucket.level, bucket.burst * bucket.seconds, bucket.rate)
    if wait == 0 and bucket.seconds > 1:
        wait = seconds_over(bucket.burst_level, bucket.burst * AT_ONCE, bucket.burst)
    return wait


cdef inline bint counts(int index, bint write) noexcept nogil:
    """Whether bucket *index*, whose place among three is its direction, is for such a request."""
    return index % 3 == 0 or index % 3 == (2 if write else 1)


cdef class BlkThrottle:
    """The limits of one disk, at first none; ``set`` and ``reserve`` may be called from any thread."""

    def __cinit__(self):
        pthread_mutex_init(&self.lock, NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.lock)

    def set(self, rates, double operation):
        """The limits from now on, with empty buckets: six (units a second, units a second in a burst, seconds of it),
        0 for none: operations both ways, read, written, then bytes. *operation* bytes count as one, 0: any number.
        """
        cdef BlkBucket[BLK_BUCKETS] buckets
        cdef bint active = False
        cdef int i
        for i in range(BLK_BUCKETS):
            buckets[i].rate, buckets[i].burst, buckets[i].seconds = rates[i]
            buckets[i].level = buckets[i].burst_level = 0
            active = active or buckets[i].rate > 0
        pthread_mutex_lock(&self.lock)
        self.buckets = buckets
        self.operation, self.active = operation, active
        self.generation += 1
        pthread_mutex_unlock(&self.lock)

    def reserve(self, bint write, uint64_t n_bytes, int64_t now):
        """Count a request at *now* (ns, CLOCK_MONOTONIC); returns when it may begin. It counts as an operation, and as
        *n_bytes* bytes.
        """
        return self.pour(write, n_bytes, now)

    def give_back(self, bint write, uint64_t n_bytes):
        """Count it no more: it will not begin."""
        self.unpour(write, n_bytes)

    cdef int64_t pour(self, bint write, uint64_t n_bytes, int64_t now) noexcept nogil:
        cdef double wait = 0
        cdef int i
        pthread_mutex_lock(&self.lock)
        leak(self, now)
        for i in range(BLK_BUCKETS):
            if counts(i, write) and (i < 3 or n_bytes != 0):
                wait = max(wait, wait_of(&self.buckets[i]))
        fill(self, write, n_bytes, 1)
        pthread_mutex_unlock(&self.lock)
        return now + <int64_t>ceil(min(wait, FOR_EVER) * NS)

    cdef void unpour(self, bint write, uint64_t n_bytes) noexcept nogil:
        pthread_mutex_lock(&self.lock)
        fill(self, write, n_bytes, -1)
        pthread_mutex_unlock(&self.lock)


cdef void leak(BlkThrottle self, int64_t now) noexcept nogil:
    cdef double passed = (now - self.at) / NS
    cdef int i
    if now <= self.at:
        return  # another thread has read its clock later and came first
    self.at = now
    for i in range(BLK_BUCKETS):
        self.buckets[i].level = leaked(self.buckets[i].level, self.buckets[i].rate * passed)
        self.buckets[i].burst_level = leaked(self.buckets[i].burst_level, self.buckets[i].burst * passed)


cdef void fill(BlkThrottle self, bint write, uint64_t n_bytes, int sign) noexcept nogil:
    cdef double operations = 1
    cdef double units
    cdef int i
    if self.operation != 0 and n_bytes > self.operation:
        operations = n_bytes / self.operation
    for i in range(BLK_BUCKETS):
        if counts(i, write):
            units = sign * (operations if i < 3 else <double>n_bytes)
            self.buckets[i].level = max(0.0, self.buckets[i].level + units)
            self.buckets[i].burst_level = max(0.0, self.buckets[i].burst_level + units)
