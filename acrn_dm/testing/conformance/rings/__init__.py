"""Rings of one format, for rules that poke at its fields; and the rules of packed rings (``rings.rules``)."""

from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.testing.driver import DriverQueue


def split(queue: DriverQueue) -> DriverRing:
    """The ring of a queue, for a rule that is pinned to split ones."""
    assert isinstance(queue.ring, DriverRing), "a rule for split rings got another one"
    return queue.ring


def packed(queue: DriverQueue) -> PackedDriverRing:
    """The ring of a queue, for a rule that is pinned to packed ones."""
    assert isinstance(queue.ring, PackedDriverRing), "a rule for packed rings got another one"
    return queue.ring
