"""Counts of a virtqueue: a snapshot for those who look."""

from acrn_dm.base.records import frozen
from acrn_dm.virtio.native._counters import QueueCounters


@frozen(kw_only=True)
class QueueCounts:
    """Counts of one queue since its device was made, over all its drivers. They only grow. Of a queue that a backend
    outside this process serves they stay 0.

    The last two are histograms: element i counts values from 2**i to 2**(i+1) - 1.
    """

    kicks: int  # notifications that were seen: some tell of several chains, polled queues see none
    chains: int  # taken from the ring, but for those given back
    returned: int  # of these, shown as used or about to be
    bytes_out: int  # that the driver said in the chains taken
    bytes_in: int  # that the device wrote into those returned
    interrupts: int  # sent
    suppressed: int  # times that used buffers were shown, or an interrupt was due, and the driver wanted none
    delayed: int  # times that used buffers were shown and the interrupt waited for more of them, or for its time
    driver_errors: int  # times the driver broke the ring
    device_errors: int  # times the device failed the queue
    throttled: int = 0  # chains that had to wait for a limit of the device's options (``iops``, ``bps``)
    late: int  # completions of an earlier driver's requests, dropped
    batches: tuple[int, ...]  # sizes of the batches taken
    latency_ns: tuple[int, ...]  # from taken to shown as used


def snapshot(counters: QueueCounters) -> QueueCounts:
    """The counts now. Takes no lock, so numbers that belong together may differ by what happens meanwhile."""
    now = counters.read()
    return QueueCounts(**now)
