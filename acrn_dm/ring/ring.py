"""Rings, of whatever format: a device side that can be served, and facts for those who only hand rings on."""

import mmap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from acrn_dm._fastring import Chain, MemoryMap
from acrn_dm.ring.layout import RingLayout, RingMemory, RingPart
from acrn_dm.ring.position import RingPosition


class Ring(Protocol):
    """The device side of one virtqueue. One thread at a time uses it.

    Once the driver has broken the protocol, every call but ``close`` raises that GuestError again.
    """

    @property
    def size(self) -> int:
        """Number of descriptors."""

    @property
    def next_avail(self) -> int:
        """A number that changes with every chain taken."""

    @property
    def in_flight(self) -> int:
        """Chains taken and neither pushed nor given back."""

    @property
    def position(self) -> RingPosition:
        """Where whoever serves the ring next begins: what is in flight is taken again."""

    def waiting(self) -> bool:
        """Whether chains are available that were not taken, freshly looked at."""

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        """Take up to *limit* available chains, in order."""

    def unpop(self, chains: Sequence[Chain]) -> None:
        """Give the chains taken last back."""

    def push(self, chain: Chain, written: int | None = None) -> None:
        """Return a chain of which *written* bytes were filled in; the driver sees it at the next ``publish``."""

    def publish(self) -> bool:
        """Show the driver what was pushed; True when it wants an interrupt for that."""

    def hold(self) -> bool:
        """Show the driver what was pushed, its interrupt held back until ``release``: True while it has one to get."""

    def release(self) -> bool:
        """Hold no interrupt back any more. True when the driver, asked anew, still wants it."""

    def disable_kicks(self) -> None:
        """Tell the driver that kicks are not needed."""

    def enable_kicks(self) -> bool:
        """Ask for a kick at the next chain; True when more came meanwhile: look again."""

    def descriptors(self, chain: Chain) -> bytes:
        """What stands in the ring for a chain that was just taken, and does not stay there: nothing in a split one."""

    def close(self) -> None:
        """Let go of guest memory."""


class ShadowSide(Protocol):
    """The driver's side of a shadow ring (``ring.shadow``)."""

    def add(self, chains: Iterable[tuple[int, bytes]]) -> None:
        """Make (head, ``Ring.descriptors``) available; there are never more than the ring has room for."""

    def used(self) -> list[tuple[int, int]]:
        """(head, bytes written) of what came back since the last call, unchecked. Raises ValueError for more than there
        can be.
        """


class DriverSide(Protocol):
    """The driver's side of one virtqueue, of whatever format: what tests have in the place of a guest."""

    memory: RingMemory
    layout: RingLayout
    event_idx: bool
    published_avail: int  # how far the device can see, for ``wants_kick``

    @property
    def free_descriptors(self) -> int:
        """Descriptors that no chain uses."""

    @property
    def ahead(self) -> int:
        """Where the next chain is going to be, in 16 bits, as a kick with NOTIFICATION_DATA says it (2.9)."""

    @property
    def position(self) -> RingPosition:
        """Where a device side begins that has seen what was returned, and nothing of what was made available since."""

    def add_chain(
        self,
        out: Sequence[tuple[int, int]] = (),
        in_: Sequence[tuple[int, int]] = (),
        indirect_table_gpa: int | None = None,
    ) -> int:
        """Describe one chain of (gpa, length) buffers, through a table where there is a place for one; returns what it
        comes back as. Raises RuntimeError when the ring is full.
        """

    def publish(self) -> None:
        """Show the device everything added."""

    def wants_kick(self, since: int | None = None) -> bool:
        """Whether the device asked to be notified of what the last ``publish`` showed, or of all *since* one."""

    def used(self) -> list[tuple[int, int]]:
        """(head, written bytes) of each chain the device returned since the last call; frees their descriptors."""

    def returned(self) -> int:
        """How many chains came back since ``used`` was last called."""

    def used_elements(self, count: int) -> list[tuple[int, int]]:
        """Where the device wrote that the last *count* chains are used: (gpa, length) of each, the latest first."""

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt at the next chain returned. True when one is there already, of which none may tell."""

    def disable_interrupts(self) -> None:
        """Ask for none."""

    def interrupt_after(self, chains: int, length: int = 1) -> None:
        """Ask for an interrupt, by EVENT_IDX, at the chain returned after *chains* more of *length* descriptors."""

    def poke(self, descriptors: Sequence[tuple[int, int, int, int]], head: int = 0) -> None:
        """Make raw (gpa, length, flags, next or id) available from *head* on, as no good driver does."""


Tell = Callable[[str, str], object]


class NotesLeft(Protocol):
    """The state in which notes were left, and a ring goes on."""

    @property
    def position(self) -> RingPosition:
        """Where its device side begins."""

    def note(self, ring: Any, part: memoryview) -> None:
        """Have the native *ring*, which is there, take first what was in flight, and note in *part* from now on."""


class NotesFormat(Protocol):
    """The notes of what is in flight in a ring of one format, in memory that outlives who writes them."""

    def length(self, entries: int) -> int:
        """Bytes of the notes of a ring of up to *entries*."""

    def take_over(self, part: memoryview, memory: RingMemory, layout: RingLayout, position: RingPosition) -> NotesLeft:
        """Set *part* right after the process that noted there; where none did, the ring is at *position*. Raises
        GuestError for notes that can't be.
        """


class Tally(Protocol):
    """The tally of what is in flight in a ring that somebody else serves. One thread at a time looks."""

    @property
    def sure(self) -> bool:
        """Whether it is known which chains are in flight."""

    def sample(self, late: bool = False) -> int:
        """Look at the ring; returns by how many entries it has moved at most. *late*: it may have gone round since."""

    def in_flight(self) -> list[int]:
        """The heads in flight at the last look, in the order in which they came. Raises ValueError if not ``sure``."""

    def in_order(self) -> bool:
        """Whether these are all that are available behind what was returned last. Raises ValueError if not ``sure``."""

    def notes(self) -> memoryview:
        """The notes of them, in memory of ours, as for ``NotesFormat.take_over``. Raises ValueError if not ``sure``."""

    def close(self) -> None:
        """Let go of the memory. Idempotent."""


class RingFormat(Protocol):
    """A ring format, as ``factory.ring_format`` chooses it by what was negotiated."""

    start: RingPosition  # of a ring that nobody has used
    shadows_descriptors: bool  # a shadow ring has its own; else the driver's are used
    sizes: str  # which ones there are, for messages

    def takes_size(self, size: int) -> bool:
        """Whether a queue can have *size* descriptors."""

    def position_said(self, base: int) -> RingPosition:
        """The position that a peer means by *base*, in SET_VRING_BASE or in its answer to GET_VRING_BASE. Raises
        ValueError for a number that is none.
        """

    def make_ring(self, features: int, memory: MemoryMap, layout: RingLayout, position: RingPosition) -> Ring:
        """The device side. Raises GuestError for what is wrong with *layout*."""

    def notes(self) -> NotesFormat:
        """The notes of what is in flight."""

    def tally(self, features: int, memory: MemoryMap, layout: RingLayout, position: RingPosition) -> Tally | None:
        """The tally of a ring whose device side begins at *position*; None where rings of the format do not tell enough
        to who looks on. Raises GuestError for a ring outside RAM.
        """

    def watch(
        self,
        ring: Ring,
        features: int,
        memory: MemoryMap,
        *,
        layout: RingLayout,
        position: RingPosition,
        tell: Tell,
        fresh: bool,
    ) -> Ring:
        """*ring* with its driver held to the rules; *tell* gets the id of each that it breaks, and what was seen.
        *fresh*: nobody has served it before.
        """

    def lay_out(self, gpa: int, size: int, align: int) -> RingLayout:
        """Where a driver puts the parts of a queue that has room from *gpa* on."""

    def make_driver_ring(self, features: int, memory: RingMemory, layout: RingLayout, start: int) -> DriverSide:
        """The driver side, whose rings are cleared."""

    def parts(self, layout: RingLayout) -> tuple[RingPart, ...]:
        """What a driver placed in guest memory."""

    def lay_out_shadow(self, at: int, size: int) -> RingLayout:
        """Where a shadow ring's parts are, from offset *at* on."""

    def make_shadow(self, memory: mmap.mmap, layout: RingLayout) -> ShadowSide:
        """The driver's side of a shadow ring, which is empty."""

    def used_position(self, memory: RingMemory, layout: RingLayout) -> RingPosition | None:
        """Where to go on when nobody knows more than what was returned; None where the ring does not say that."""

    def idle(self, memory: RingMemory, layout: RingLayout) -> bool:
        """Whether it is sure that every chain that was made available has been returned."""
