# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The counters of a virtqueue, for those who serve it in Python and for all who read them."""

cimport cython
from acrn_dm._fastring cimport Chain
from cpython.mem cimport PyMem_Calloc, PyMem_Free


@cython.no_gc
cdef class QueueCounters:
    """Counters of one queue of up to *size* entries, for the life of its device. They only grow; reading takes no lock,
    so numbers that belong together may differ by what happened in between.
    """

    def __cinit__(self, uint32_t size):
        self.taken_at = <int64_t *>PyMem_Calloc(size, sizeof(int64_t))
        if self.taken_at == NULL:
            raise MemoryError()
        self.n_heads = size

    def __dealloc__(self):
        PyMem_Free(self.taken_at)

    def begin(self):
        """A ring is served from now on: what the last one had in flight takes no time of this one's."""
        self.n_pending = 0

    def kicked(self):
        """A notification was seen."""
        self.counts.kicks += 1

    def popped(self, list chains not None):
        """*chains* were taken from the ring."""
        cdef int64_t now
        cdef object chain
        if not chains:
            return
        now = monotonic_ns()
        self.took(<uint32_t>len(chains))
        for chain in chains:
            if isinstance(chain, Chain):
                self.took_one((<Chain>chain).chain.head, (<Chain>chain).chain.out_bytes, now)

    def unpopped(self, uint32_t n):
        """*n* of them were given back."""
        self.counts.chains -= n

    def pushed(self, chain, uint32_t written):
        """*chain* was returned, with *written* bytes."""
        if isinstance(chain, Chain):
            self.gave((<Chain>chain).chain.head, written)

    def published(self, bint wanted):
        """What was returned is shown; *wanted*: the driver is interrupted for that."""
        self.showed(wanted)

    def throttled(self):
        """A chain waits for a limit of the device's options."""
        self.counts.throttled += 1

    def failed(self, bint by_driver):
        """The queue is dead, by the driver's fault or the device's."""
        if by_driver:
            self.counts.driver_errors += 1
        else:
            self.counts.device_errors += 1

    def read(self):
        """All of them, as a dictionary of numbers; ``batches`` and ``latency_ns`` are histograms, a tuple each
        whose element i counts values from 2**i to 2**(i+1) - 1.
        """
        return {
            "kicks": self.counts.kicks,
            "chains": self.counts.chains,
            "returned": self.counts.returned,
            "bytes_out": self.counts.bytes_out,
            "bytes_in": self.counts.bytes_in,
            "interrupts": self.counts.interrupts,
            "suppressed": self.counts.suppressed,
            "delayed": self.counts.delayed,
            "driver_errors": self.counts.driver_errors,
            "device_errors": self.counts.device_errors,
            "throttled": self.counts.throttled,
            "late": self.counts.late,
            "batches": tuple([self.counts.batches[i] for i in range(BATCH_BUCKETS)]),
            "latency_ns": tuple([self.counts.latency[i] for i in range(LATENCY_BUCKETS)]),
        }
