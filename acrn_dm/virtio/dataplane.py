"""The running half of a device: kick and call eventfds of the enabled queues, and the backend between them.

Control threads only, under the function's lock.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

import attrs

from acrn_dm.base.errors import GuestError, HostError
from acrn_dm.base.records import define
from acrn_dm.contract.resources import Resources
from acrn_dm.pci.eventfds import CallEvent, KickAddress, KickEvent
from acrn_dm.pci.msix import Msix
from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.position import RingPosition
from acrn_dm.virtio.backend import Backend, Session, SessionQueue
from acrn_dm.virtio.native._counters import QueueCounters
from acrn_dm.virtio.native.counts import QueueCounts, snapshot
from acrn_dm.virtio.queue_config import QueueConfig

log = logging.getLogger(__name__)

NOTHING = QueueCounters(1)  # of a queue that nobody has used yet

NotifyAddress = Callable[[int], KickAddress | None]  # of a queue; None while the register is nowhere


@define(eq=False)
class _Events:
    """The two eventfds of one queue."""

    kick: KickEvent
    call: CallEvent

    def close(self) -> None:
        self.kick.close()
        self.call.close()


class DataPlane:
    """The eventfds and the backend of one device. From ``start`` to ``stop`` the queues belong to the backend."""

    def __init__(
        self,
        name: str,
        backend: Backend,
        *,
        poll_ns: int | None,
        without_msix: Callable[[], None],
        driver_broke: Callable[[str, str, int], object] | None = None,
    ) -> None:
        """*driver_broke*: told of clauses that the driver breaks, see ``Session``."""
        self.backend = backend
        self.native = True  # queues may be served in C, from the next start or resume on
        self._name = name
        self._poll_ns = poll_ns
        self._without_msix = without_msix
        self._driver_broke = driver_broke
        self._events: dict[int, _Events] = {}
        self._counters: dict[int, QueueCounters] = {}
        self._session: Session | None = None
        self._started = False
        self._cancelled = False
        self._paused: Mapping[int, RingPosition | int] | None = None  # where the queues were
        self._kicked = False  # ... and whether the driver has kicked one since
        self._lost: GuestError | None = None  # while paused: why a kick can't be served later
        self._complained = False

    def start(
        self,
        resources: Resources,
        msix: Msix | None,
        negotiated: int,
        queues: Iterable[QueueConfig],
        address: NotifyAddress,
    ) -> None:
        """Make the eventfds, bind them queue by queue as the original program does, kick first, and let the backend go.

        What comes before the backend waits in the eventfds. Raises what the backend raises; then ``stop`` cleans up.
        """
        self._started = True
        begin = ring_format(negotiated).start
        session_queues = tuple(self._open(resources, msix, queue, address, begin) for queue in queues)
        self._session = Session(
            features=negotiated,
            queues=session_queues,
            resources=resources,
            poll_ns=self._poll_ns,
            driver_broke=self._driver_broke,
            native=self.native,
        )
        self.backend.start(self._session)

    def join(
        self, resources: Resources, msix: Msix | None, queues: Iterable[QueueConfig], address: NotifyAddress
    ) -> None:
        """Let those of *queues* run that do not yet; the others go on where they were. Raises as ``start``."""
        if self._session is None:
            return
        self.pause()
        for queue in queues:
            if queue.index not in self._events:
                self._admit(self._session, resources, msix, queue, address)
        self.resume()

    def reset_queue(self, index: int) -> None:
        """Stop queue *index* alone and forget it (2.6.1.1): its eventfds are closed when this returns. A backend that
        can't let go of one queue stops, and goes on with the others where they were. Raises as ``start``.
        """
        events = self._events.get(index)
        if self._session is None or events is None:
            return
        events.kick.bind(None)
        paused = self._paused is not None
        alone = paused or self.backend.reset_queue(index)
        if not alone:
            self.pause()
        left = tuple(queue for queue in self._session.queues if queue.index != index)
        self._session = attrs.evolve(self._session, queues=left)
        self._events.pop(index).close()
        if not alone:
            self.resume()

    def queue_busy(self, index: int) -> bool:
        """Whether something of queue *index*, which was reset, may still use guest memory."""
        return self.backend.queue_busy(index)

    def enable_queue(self, resources: Resources, msix: Msix | None, queue: QueueConfig, address: NotifyAddress) -> None:
        """Let *queue*, which was reset, run from its beginning; the others go on. Raises as ``start``."""
        if self._session is None:
            return
        opened = self._admit(self._session, resources, msix, queue, address)
        if self._paused is None and not self.backend.enable_queue(self._session, opened):
            self.pause()
            self.resume()

    def _admit(
        self,
        session: Session,
        resources: Resources,
        msix: Msix | None,
        queue: QueueConfig,
        address: NotifyAddress,
    ) -> SessionQueue:
        """Make *queue*, which begins, one of the session's. Raises HostError."""
        opened = self._open(resources, msix, queue, address, ring_format(session.features).start)
        queues = sorted((*session.queues, opened), key=lambda queue: queue.index)
        self._session = attrs.evolve(session, queues=tuple(queues))
        return opened

    def _open(
        self,
        resources: Resources,
        msix: Msix | None,
        queue: QueueConfig,
        address: NotifyAddress,
        position: RingPosition,
    ) -> SessionQueue:
        """Make a queue's eventfds and bind them. Raises HostError."""
        call = CallEvent(resources.eventfds, msix, self._without_msix, self._refused)
        try:
            kick = KickEvent(resources.eventfds, self._refused)
        except HostError:
            call.close()
            raise
        self._events[queue.index] = _Events(kick, call)
        kick.bind(self._bindable(address(queue.index)))
        call.set_vector(queue.vector)
        return SessionQueue(
            index=queue.index,
            size=queue.size,
            desc=queue.desc,
            avail=queue.avail,
            used=queue.used,
            kick=kick,
            call=call,
            position=position,
            counters=self._counters.setdefault(queue.index, QueueCounters(queue.max_size)),
        )

    @property
    def started(self) -> bool:
        """Between ``start`` and ``stop``."""
        return self._started

    def cancel(self) -> None:
        """Begin to stop, for good and without waiting; ``stop`` follows. Idempotent, never raises."""
        if not self._started or self._cancelled:
            return
        self._cancelled = True
        # Kicks stop coming first: the guest's other vCPUs may still write the notify register.
        self.bind_kicks(lambda _: None)
        if self._paused is None:
            try:
                self.backend.cancel()
            except Exception:
                log.exception("%s: the backend did not stop cleanly", self._name)

    @property
    def busy(self) -> bool:
        """Whether something that was given up may still use guest memory."""
        return self.backend.busy

    def stop(self) -> Mapping[int, RingPosition | int]:
        """Stop the backend, then close the eventfds; returns where each queue was. Idempotent, never raises."""
        if not self._started:
            return {}
        self._started = self._cancelled = False
        self.bind_kicks(lambda _: None)
        positions = self._stop_backend() if self._paused is None else self._paused
        self._session = self._paused = self._lost = None
        for events in self._events.values():
            events.close()
        self._events.clear()
        return positions

    def pause(self) -> None:
        """Stop the backend between two requests. Queues and eventfds stay; kicks and calls wait in them. Idempotent.

        Raises HostError where the host does not finish what is in flight; then only ``stop`` helps.
        """
        self._lost = None
        if self._started and self._paused is None:
            self._kicked = False
            self._paused = self._stop_backend()
            if self.backend.busy:
                raise HostError(f"{self._name}: requests are stuck in the host")

    def resume(self) -> None:
        """Let the backend go on where it was. Raises what ``Backend.start`` raises, and is still paused then."""
        if self._session is None or self._paused is None:
            return
        positions, self._paused, self._lost = self._paused, None, None
        queues = tuple(
            attrs.evolve(queue, position=positions.get(queue.index, queue.position)) for queue in self._session.queues
        )
        try:
            self.backend.start(attrs.evolve(self._session, queues=queues, resumed=True, native=self.native))
        except Exception:
            self._stop_backend()
            self._paused = positions
            raise

    def stay_paused(self, error: GuestError) -> None:
        """``resume`` has raised *error*: rings lie where no memory is, which may come back before somebody resumes
        again. Raises *error* if the driver kicks one meanwhile, or has done so since the pause.
        """
        if self._kicked:
            raise error
        self._lost = error.with_traceback(None)

    def bind_kicks(self, address: NotifyAddress) -> None:
        """Follow the notify registers: *address* tells where that of each queue is."""
        for index, events in self._events.items():
            events.kick.bind(self._bindable(address(index)))

    def signal_kick(self, index: int) -> None:
        """Signal the kick of queue *index*, for a notify write that came to this process. Raises GuestError where no
        memory is for the rings.
        """
        if self._lost is not None:
            raise self._lost
        self._kicked = True
        events = self._events.get(index)
        if events is not None:
            events.kick.signal()

    def counts(self, index: int) -> QueueCounts:
        """What was counted of queue *index* so far. Any thread."""
        return snapshot(self._counters.get(index, NOTHING))

    def set_vector(self, index: int, vector: int) -> None:
        """The driver moved a queue to another vector."""
        events = self._events.get(index)
        if events is not None:
            events.call.set_vector(vector)

    def _bindable(self, address: KickAddress | None) -> KickAddress | None:
        polled = self._poll_ns is not None and self.backend.polls
        return None if polled else address

    def _stop_backend(self) -> Mapping[int, RingPosition | int]:
        try:
            return self.backend.stop()
        except Exception:
            log.exception("%s: the backend did not stop cleanly", self._name)
            return {}

    def _refused(self, error: HostError) -> None:
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        log.log(level, "%s: %s; it goes on through this process, slower", self._name, error)
