# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The device loop of ``_bench_packed`` by the calls that know no ring format, as virtio devices' planes have it."""

from libc.stdint cimport uint32_t, uint64_t

from acrn_dm._fastring cimport FR_OK, FrBatch, FrVirtqueue, NativeRing, vq_pop_batch, vq_publish, vq_push


cdef int handle(
    FrVirtqueue *queue, FrBatch *batch, uint32_t limit, uint64_t *addresses, uint64_t *lengths,
) noexcept nogil:
    cdef uint32_t i, k
    if vq_pop_batch(queue, batch, limit) != FR_OK:
        return 0
    for i in range(batch.n_chains):
        for k in range(batch.chains[i].n_out + batch.chains[i].n_in):
            addresses[0] += <uint64_t>batch.chains[i].segments[k].hva
            lengths[0] += batch.chains[i].segments[k].len
        vq_push(queue, batch.chains[i].head, batch.chains[i].in_bytes)
    vq_publish(queue)
    return batch.n_chains


def serve(NativeRing ring not None, object driver, uint32_t batch, int refills):
    """Serve *refills* of the *driver*'s, a refill without Python objects.

    Raises RuntimeError when the device did not find every address and length, or returned the wrong chains.
    """
    cdef FrVirtqueue *queue = ring.virtqueue()
    cdef uint64_t addresses, lengths
    cdef int n
    for _ in range(refills):
        driver.refill()
        addresses = lengths = 0
        with nogil:
            n = 1
            while n != 0:
                n = handle(queue, &ring.batch, batch, &addresses, &lengths)
        if not driver.collect() or driver.found() != (addresses, lengths):
            raise RuntimeError("the device side did not handle what the driver made available")
