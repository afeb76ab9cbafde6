# What is counted of a queue, in plain C fields: whoever serves the queue adds, one thread at a time; anybody may read.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef enum:
    BATCH_BUCKETS = 16        # bucket i: batches of 2^i to 2^(i+1) - 1 chains
    LATENCY_BUCKETS = 40      # bucket i: 2^i to 2^(i+1) - 1 ns from taken to shown as used; 0 is in the first, too
    MAX_PENDING = 256         # returned chains whose latency is counted when they are shown

cdef extern from *:
    """
    static inline int qc_log2(unsigned long long value) { return value ? 63 - __builtin_clzll(value) : 0; }
    """
    int qc_log2(unsigned long long value) noexcept nogil

cdef extern from "<time.h>" nogil:
    struct qc_timespec "timespec":
        long tv_sec
        long tv_nsec
    int qc_clock_gettime "clock_gettime"(int clock, qc_timespec *now)
    int QC_CLOCK_MONOTONIC "CLOCK_MONOTONIC"

cdef struct Counts:
    uint64_t kicks            # notifications of the driver's that were seen
    uint64_t chains           # taken, less those given back
    uint64_t returned
    uint64_t bytes_out        # device-readable bytes of the chains taken
    uint64_t bytes_in         # bytes written into those returned
    uint64_t interrupts
    uint64_t suppressed       # times that used buffers were shown and the driver wanted no interrupt
    uint64_t delayed          # times that they were shown and the interrupt was held back for more of them
    uint64_t driver_errors    # the driver broke the ring
    uint64_t device_errors    # the device failed the queue
    uint64_t throttled        # chains that had to wait for a limit of the device's options
    uint64_t late             # completions of an earlier driver's, dropped
    uint64_t batches[BATCH_BUCKETS]
    uint64_t latency[LATENCY_BUCKETS]


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef qc_timespec now
    qc_clock_gettime(QC_CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1000000000 + now.tv_nsec


cdef class QueueCounters:
    cdef Counts counts
    cdef int64_t *taken_at                # by head
    cdef uint32_t n_heads
    cdef uint16_t pending[MAX_PENDING]    # heads that were returned and not yet shown
    cdef uint32_t n_pending

    cdef inline void took(self, uint32_t n) noexcept nogil:
        self.counts.chains += n
        self.counts.batches[qc_log2(n)] += 1

    cdef inline void took_one(self, uint16_t head, uint32_t out_bytes, int64_t now) noexcept nogil:
        self.counts.bytes_out += out_bytes
        if head < self.n_heads:
            self.taken_at[head] = now

    cdef inline void gave(self, uint16_t head, uint32_t written) noexcept nogil:
        self.counts.returned += 1
        self.counts.bytes_in += written
        if self.n_pending == MAX_PENDING:
            self.settle(monotonic_ns())
        self.pending[self.n_pending] = head
        self.n_pending += 1

    cdef inline void settle(self, int64_t now) noexcept nogil:
        cdef uint32_t i
        cdef int64_t took
        for i in range(self.n_pending):
            if self.pending[i] >= self.n_heads:
                continue
            took = now - self.taken_at[self.pending[i]]
            self.counts.latency[min(qc_log2(max(<int64_t>0, took)), LATENCY_BUCKETS - 1)] += 1
        self.n_pending = 0

    # What was returned is shown, and the interrupt for it held back.
    cdef inline void held(self, int64_t now) noexcept nogil:
        self.settle(now)
        self.counts.delayed += 1

    # An interrupt was held back up to now; *wanted*: it is sent.
    cdef inline void let_go(self, bint wanted) noexcept nogil:
        if wanted:
            self.counts.interrupts += 1
        else:
            self.counts.suppressed += 1

    # What was returned is shown; *wanted*: the driver is interrupted for that.
    cdef inline void showed(self, bint wanted) noexcept nogil:
        if self.n_pending == 0:
            return
        self.settle(monotonic_ns())
        self.let_go(wanted)
