"""The rings of a queue, for rules that poke at the fields of one format, to which they are pinned."""

from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.driver_packed import PackedDriverRing
from acrn_dm.testing.driver import DriverQueue


def split(queue: DriverQueue) -> DriverRing:
    """The ring of a queue whose driver uses split ones."""
    assert isinstance(queue.ring, DriverRing), "a rule for split rings got another one"
    return queue.ring


def packed(queue: DriverQueue) -> PackedDriverRing:
    """The ring of a queue whose driver uses packed ones."""
    assert isinstance(queue.ring, PackedDriverRing), "a rule for packed rings got another one"
    return queue.ring
