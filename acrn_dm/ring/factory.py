"""The choice of the ring format that a driver uses, made here and nowhere else."""

from typing import Any, Protocol

from acrn_dm._fastring import MemoryMap
from acrn_dm.ring.features import PACKED
from acrn_dm.ring.layout import RingLayout, RingMemory
from acrn_dm.ring.packed.format import PACKED_RINGS
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import DriverSide, Ring, RingFormat, Tell
from acrn_dm.ring.split import SPLIT

RING_FORMATS: tuple[RingFormat, ...] = (SPLIT, PACKED_RINGS)


class PlacedQueue(Protocol):
    """A queue as its driver has placed it; ``virtio.backend.SessionQueue`` in a machine."""

    @property
    def layout(self) -> RingLayout:
        """Its size and where it is."""

    @property
    def position(self) -> RingPosition:
        """Where to begin."""


def ring_format(features: int) -> RingFormat:
    """The format of a driver's rings that negotiated *features*."""
    return PACKED_RINGS if features & PACKED else SPLIT


def make_ring(features: int, queue: PlacedQueue, memory: MemoryMap, notes: memoryview | None = None) -> Ring:
    """The device side of *queue*, of the format that was negotiated, with *notes* of what is in flight if anybody wants
    them. Raises GuestError for a ring that can't be, and for such notes.
    """
    form = ring_format(features)
    if notes is None:
        return form.make_ring(features, memory, queue.layout, queue.position)
    # Its position is what the notes say, and not what a front-end may have kept of it.
    left = form.notes().take_over(notes, memory, queue.layout, queue.position)
    ring = form.make_ring(features, memory, queue.layout, left.position)
    left.note(ring, notes)
    return ring


def log_writes(ring: Any, bits: memoryview | None, *, used: int, desc: int) -> None:
    """Have *ring* mark in *bits* each page of guest memory that it writes from now on, or no more. It stands for the
    first page in its lowest bit. *used* and *desc* are guest addresses of the used ring and the descriptors, -1 where
    these are not to be marked. Who calls it holds the ring's loop.
    """
    if bits is not None or ring.native.overlaid:
        from acrn_dm.ring.native.dirty._dirty import log_writes as log  # noqa: PLC0415

        log(ring.native, bits, used=used, desc=desc)


def watch_ring(
    features: int, ring: Ring, queue: PlacedQueue, memory: MemoryMap, *, tell: Tell, fresh: bool = True
) -> Ring:
    """*ring* with its driver held to the rules of its format: *tell* gets the id of each that it breaks, and how.
    *fresh*: nobody has served it before.
    """
    return ring_format(features).watch(
        ring, features, memory, layout=queue.layout, position=queue.position, tell=tell, fresh=fresh
    )


def make_driver_ring(features: int, layout: RingLayout, memory: RingMemory, *, start: int = 0) -> DriverSide:
    """The driver side of a queue, for tests of devices."""
    return ring_format(features).make_driver_ring(features, memory, layout, start)
