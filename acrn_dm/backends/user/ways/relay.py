"""Requests relayed to a back-end that takes no notes: for those without INFLIGHT_SHMFD whose rings are not watched, or
were until the last one ended.

Requests complete in any order, so the rings of a back-end that died do not tell which ones it owes; packed rings do not
even tell how many came back. Here they are taken from the driver's ring as in any other device, noted, and passed on by
their head in a shadow ring; answers come back the same way. Data is not touched, nor are descriptors, but that packed
ones are copied (``ring.packed.shadow``). A new back-end gets everything that is noted again. The price are two thread
wake-ups a batch.

``Relay`` is the device that ``VbsU`` serves in place of the real one. Its queues pass in C (``native``), but where the
way through Python is wanted.
"""

import functools
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.backends.user.native._relay import RelayPlane
from acrn_dm.backends.user.native.relay_queue import NativeRelayQueue
from acrn_dm.backends.user.ways.shadow import ShadowArea
from acrn_dm.backends.vbs_u import VbsU
from acrn_dm.backends.wire.message import PeerError
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import SIGNALLED, drain, signal
from acrn_dm.base.records import define, frozen
from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import RingFormat, ShadowSide
from acrn_dm.ring.shadow import can_shadow
from acrn_dm.virtio.backend import Session
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.native._plane import Plane
from acrn_dm.virtio.queue import Queue

BATCH, BATCHES = 64, 4  # chains at once, batches per turn of the loop


@frozen(kw_only=True)
class Left:
    """The *count* chains that an earlier back-end has left in flight in a ring that it had itself, and notes of
    them.
    """

    count: int
    notes: memoryview


@define(eq=False)
class RelayQueue:
    """One queue. ``in_flight`` keeps the order in which requests came, which is the one they are repeated in."""

    queue: Queue
    failed: Callable[[HostError], None]
    form: RingFormat
    in_flight: dict[int, Chain] = attrs.field(factory=dict, init=False)
    _kept: dict[int, bytes] = attrs.field(factory=dict, init=False, repr=False)  # their descriptors
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)  # against connections
    _ring: ShadowSide | None = attrs.field(default=None, init=False)
    _kick_fd: int = attrs.field(default=-1, init=False)
    _call_fd: int = attrs.field(default=-1, init=False)

    def connect(self, area: ShadowArea) -> None:
        """A back-end is going to use *area*: make everything in flight available there."""
        self.disconnect()
        place = area.queues[self.queue.index]
        with self._lock:
            self._ring = self.form.make_shadow(area.memory, place.layout(self.form, self.queue.size))
            self._ring.add((head, self._kept[head]) for head in self.in_flight)
            self._kick_fd, self._call_fd = place.kick_fd, place.call_fd
            self.queue.loop.add(place.call_fd, self._called, events=SIGNALLED)

    def disconnect(self) -> None:
        """Nobody uses the shadow ring any more."""
        with self._lock:
            call_fd, self._call_fd, self._kick_fd, self._ring = self._call_fd, -1, -1, None
        if call_fd >= 0:
            self.queue.loop.remove(call_fd)

    def end(self) -> None:
        """Nothing is passed on any more."""

    def finish(self, deadline: float, alive_fd: int) -> int:
        """Wait for what is in flight while the connection *alive_fd* lasts; returns how many are still out.

        The driver's ring must not be served any more. Raises PeerError.
        """
        with self._lock:
            ring, call_fd = self._ring, self._call_fd
        self.disconnect()
        if ring is None:
            return len(self.in_flight)
        poller = select.poll()
        poller.register(call_fd, select.POLLIN)
        poller.register(alive_fd, 0)  # a hang-up is always reported
        self._answer(ring)
        while self.in_flight:
            patience = deadline - time.monotonic()  # also with an eventfd that is always readable
            ready = dict(poller.poll(patience * 1000)) if patience > 0 else {}
            if not ready or alive_fd in ready:
                break
            drain(call_fd)
            self._answer(ring)
        self.queue.flush()
        return len(self.in_flight)

    @property
    def owed(self) -> int:
        """Chains that the back-end has not returned."""
        return len(self.in_flight)

    def notify(self) -> None:
        """Tell the back-end to look at the ring."""
        with self._lock:
            self._notify()

    def forward(self, chains: Sequence[Chain]) -> None:
        """Note *chains* and pass them on; without a back-end they wait. On the loop's thread."""
        if not chains:
            return
        with self._lock:
            new = {chain.head: self.queue.ring.descriptors(chain) for chain in chains}
            self.in_flight.update((chain.head, chain) for chain in chains)
            self._kept |= new
            if self._ring is not None:
                self._ring.add(new.items())
                self._notify()

    def _notify(self) -> None:
        if self._kick_fd >= 0:
            signal(self._kick_fd)

    def _called(self) -> None:
        """Answers are there. On the loop's thread."""
        try:
            with self._lock:
                if self._ring is not None:
                    drain(self._call_fd)
                    self._answer(self._ring)
        except PeerError as e:
            self.failed(e)
        self.queue.flush()

    def _answer(self, ring: ShadowSide) -> None:
        try:
            elements = ring.used()
        except ValueError as e:
            raise PeerError(str(e)) from e
        for head, written in elements:
            chain = self.in_flight.pop(head, None)
            if chain is None or written > chain.writable_bytes:
                raise PeerError(f"it returned descriptor {head} with {written} bytes, which nobody asked for")
            del self._kept[head]
            self.queue.push(chain, written)


class Relay(VirtioDevice):
    """The relay of one connection. *failed* is called on the loop's thread when the back-end writes nonsense into a
    shadow ring.

    *finishes*: requests have to be finished before somebody else can go on. Those of other devices are taken from the
    rings again, as their buffers for what arrives have to be, and ``end`` takes what answers there are.
    """

    def __init__(
        self, device: VirtioDevice, failed: "Callable[[Relay, HostError], None]", *, finishes: bool = True
    ) -> None:
        super().__init__(device.context)
        self._device = device
        self._finishes = finishes
        self._failed = functools.partial(failed, self)
        self._queues: dict[int, RelayQueue | NativeRelayQueue] = {}
        self._left: Mapping[int, Left] = {}
        self.owing = False  # it ended with requests that nobody finished
        self._server = VbsU(self)
        self._alive_fd = -1
        self._deadline = 0.0

    def begin(self, session: Session, left: Mapping[int, Left]) -> None:
        """Serve the driver's rings; where an earlier back-end had them itself, with what it has *left*, by queue.
        Raises GuestError.
        """
        self._left = left
        queues = tuple(
            attrs.evolve(queue, notes=left[queue.index].notes) if queue.index in left else queue
            for queue in session.queues
        )
        self._server.start(attrs.evolve(session, queues=queues, poll_ns=None))  # kicks are bound, as for every proxy

    def end(self, alive_fd: int, seconds: float) -> dict[int, RingPosition]:
        """Let go of them, when the back-end has finished what it has to; returns where they are.

        *alive_fd* is its connection, -1 if there is none. Raises PeerError if it does not finish within *seconds*.
        """
        self._alive_fd = alive_fd
        self._deadline = time.monotonic() + seconds if self._finishes else 0.0
        return dict(self._server.stop())

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """A driver came."""
        form = ring_format(features)
        self._queues = {queue.index: RelayQueue(queue, self._failed, form) for queue in queues}
        for queue in queues:
            self._take_left(queue)

    def _take_left(self, queue: Queue) -> None:
        """At once: only here it is known that these are owed. Raises GuestError."""
        relayed = self._queues[queue.index]
        assert isinstance(relayed, RelayQueue)
        left = self._left[queue.index].count if queue.index in self._left else 0
        while left > 0:
            chains = queue.pop_batch(left)
            relayed.forward(chains)
            left -= len(chains)

    def plane(self, features: int, queue: Queue) -> Plane | None:
        """A plane that does what ``RelayQueue`` does; None on a host without asynchronous I/O, by which it signals."""
        if not can_shadow(queue.ring):
            return None
        form = ring_format(features)
        try:
            plane = RelayPlane(queue.size, packed=form.shadows_descriptors)
        except OSError:
            return None
        before = self._queues[queue.index]
        assert isinstance(before, RelayQueue)
        plane.adopt(list(before.in_flight.values()))
        self._queues[queue.index] = NativeRelayQueue(queue, self._failed, form, plane)
        return plane

    def handle_queue(self, queue: Queue) -> None:
        """Pass on what is there."""
        relayed = self._queues[queue.index]
        assert isinstance(relayed, RelayQueue)
        for _ in range(BATCHES):
            relayed.forward(queue.pop_batch(BATCH))

    def stop(self) -> None:
        """Kicks have ended; the driver's rings are there until this returns, shadow rings and their eventfds, too."""
        queues, self._queues = self._queues, {}
        left = 0
        self.owing = self._finishes and any(queue.owed for queue in queues.values())
        try:
            if self._alive_fd >= 0:
                left = sum(queue.finish(self._deadline, self._alive_fd) for queue in queues.values())
                self.owing = self._finishes and left > 0
        finally:
            for queue in queues.values():  # also those behind one with nonsense: nobody else knows them any more
                queue.disconnect()
                queue.end()
        if self.owing and left:
            raise PeerError(f"{left} requests were not finished in time")

    def connect(self, area: ShadowArea) -> None:
        """See ``RelayQueue.connect``; for all queues."""
        for queue in self._queues.values():
            queue.connect(area)

    def notify(self) -> None:
        """Tell the back-end to look at all rings."""
        for queue in self._queues.values():
            queue.notify()

    def disconnect(self) -> None:
        """The back-end is gone."""
        for queue in self._queues.values():
            queue.disconnect()

    def fail(self, error: Exception) -> None:
        """The driver broke its ring."""
        self._device.fail(error)
