"""The userspace backend, and the default: rings are served by the device's ``handle_queue`` on an I/O loop.

Where a device has a plane in C for a queue, that serves it instead (``plane_server``).

A kick is served in at most two rounds; a queue that then still has work kicks itself and so waits its turn behind the
others of its loop. No driver can keep a loop to itself by adding as fast as it is served.
"""

from collections.abc import Callable, Iterable, Mapping

from acrn_dm.backends.in_order import InOrderRing
from acrn_dm.backends.plane_server import NS_PER_S, PlaneServer, end_queue, plane_of
from acrn_dm.backends.told import ToldRing
from acrn_dm.base.events.io_threads import SHARED, thread_loop
from acrn_dm.base.events.ioloop import IoLoop, Timer
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import BackendType
from acrn_dm.ring.factory import make_ring, watch_ring
from acrn_dm.ring.features import IN_ORDER
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import Ring
from acrn_dm.virtio.backend import Backend, Session, SessionQueue
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import Cancellable, InFlight, LoopChoice, QueueEnabled, QueueInFlight, QueueReset, Threads
from acrn_dm.virtio.queue import Queue

ROUNDS_PER_KICK = 2


class QueueServer:
    """The server of one queue, on its loop's thread, from ``start`` to ``stop`` (which control threads call)."""

    def __init__(self, device: VirtioDevice, queue: Queue, events: SessionQueue, poll_ns: int | None) -> None:
        self.queue = queue
        self._device = device
        self._events = events
        self._poll_s = None if poll_ns is None else poll_ns / NS_PER_S
        self._timer: Timer | None = None
        self._serving = False

    def start(self) -> None:
        """Take kicks, and look at the ring once: drivers may fill it before DRIVER_OK and need not kick for that."""
        self._serving = True
        self.queue.loop.add(self._events.kick.fd, self._on_kick, eventfd=True)
        self._events.kick.signal()
        if self._poll_s is not None:
            self._timer = self.queue.loop.call_later(self._poll_s, self._on_timer)

    def stop(self) -> None:
        """When this returns no ``handle_queue`` of this queue runs, now or later."""
        self._serving = False
        self.queue.loop.remove(self._events.kick.fd)  # waits for a handler that runs now, which may set a timer yet
        if self._timer is not None:
            self._timer.cancel()

    def _on_kick(self) -> None:
        if self._serving:
            self.queue.counters.kicked()
            self._serve()

    def detach(self) -> None:
        """Nothing more: the queue is about to be closed."""

    def _on_timer(self) -> None:
        if self._serving and self._poll_s is not None:
            self._serve()
            self._timer = self.queue.loop.call_later(self._poll_s, self._on_timer)

    def _serve(self) -> None:
        try:
            self._rounds()
        except Exception as e:
            # The driver's fault or the device's: this queue is dead until the driver resets, the others go on.
            self._serving = False
            self.queue.loop.remove(self._events.kick.fd)
            end_queue(self._device, self.queue, e)

    def _rounds(self) -> None:
        ring = self.queue.ring
        ring.disable_kicks()
        for _ in range(ROUNDS_PER_KICK):
            before = ring.next_avail
            self._device.handle_queue(self.queue)
            self.queue.flush()
            if self._poll_s is not None:
                return  # kicks stay disabled, the timer looks again
            arrived = ring.enable_kicks()
            # A device may leave chains in the ring on purpose (a receive queue without input). Only one that took some
            # and left others has more to do.
            left_over = ring.next_avail != before and ring.waiting()
            if not (arrived or left_over):
                return
            ring.disable_kicks()
        self._events.kick.signal()


class VbsU(Backend):
    """The backend of one device in this process."""

    packed_by_default = True
    follows_memory = True
    polls = True

    def __init__(self, device: VirtioDevice) -> None:
        super().__init__(device)
        self._servers: list[QueueServer | PlaneServer] = []
        self._served: list[QueueServer | PlaneServer] = []  # those of this driver, stopped or not
        self._queues: list[Queue] = []
        self._device_started = False
        self._cancelled = False

    def start(self, session: Session) -> None:
        """Make the rings, start the device, then take kicks."""
        self._cancelled = False
        for events in session.queues:
            self._queues.append(self._open(session, events))
        self._device_started = True
        self.device.start(session.features, tuple(self._queues))
        for queue, events in zip(self._queues, session.queues, strict=True):
            self._serve(queue, events, session)

    def cancel(self) -> None:
        """Kicks end, then the device gives up what it can."""
        self._cancelled = True
        self._end_kicks()
        if self._device_started and isinstance(self.device, Cancellable):
            self.device.cancel()

    @property
    def busy(self) -> bool:
        """As the device says."""
        return isinstance(self.device, InFlight) and self.device.busy

    def reset_queue(self, index: int) -> bool:
        """Where the device has a way to let go of one queue; its late completions are void."""
        device = self.device
        if not isinstance(device, QueueReset) or not isinstance(device, QueueEnabled):
            return False
        server = next(server for server in self._servers if server.queue.index == index)
        server.stop()
        self._servers.remove(server)
        self._served.remove(server)
        self._queues.remove(server.queue)
        try:
            device.queue_reset(server.queue)
        finally:
            server.detach()
            server.queue.close()
        return True

    def queue_busy(self, index: int) -> bool:
        """As the device says."""
        return isinstance(self.device, QueueInFlight) and self.device.queue_busy(index)

    def enable_queue(self, session: Session, queue: SessionQueue) -> bool:
        """Where the device can be given one."""
        device = self.device
        if not isinstance(device, QueueReset) or not isinstance(device, QueueEnabled):
            return False
        opened = self._open(session, queue)
        self._queues.append(opened)
        device.queue_enabled(opened)
        self._serve(opened, queue, session)
        return True

    def _serve(self, queue: Queue, events: SessionQueue, session: Session) -> None:
        plane = plane_of(self.device, queue, session)
        server = (
            QueueServer(self.device, queue, events, session.poll_ns)
            if plane is None
            else PlaneServer(self.device, queue, events, session.poll_ns, plane)
        )
        self._servers.append(server)
        self._served.append(server)
        server.start()

    def stop(self) -> Mapping[int, RingPosition]:
        """Kicks end, then the device, then the rings are closed, which makes late completions void."""
        self._end_kicks()
        try:
            if self._device_started:
                self._device_started = False
                self.device.stop()
        finally:
            # What the device holds on to goes to whoever serves the ring next: it is popped again.
            for server in self._served:
                server.detach()
            self._served.clear()
            positions = {q.index: q.ring.position for q in self._queues}
            for queue in self._queues:
                if not self._cancelled:  # a pause: the driver misses no interrupt that waits
                    queue.settle_last()
                queue.close()
            self._queues.clear()
        return positions

    def each_ring(self, work: Callable[[int, Ring], None]) -> None:
        """Do *work* with the index of each queue and its ring, while nobody uses that."""
        for queue in self._queues:
            with queue.loop.held():
                if not queue.closed:
                    work(queue.index, queue.ring)

    def _end_kicks(self) -> None:
        for server in self._servers:
            server.stop()
        self._servers.clear()

    def _open(self, session: Session, queue: SessionQueue) -> Queue:
        memory, tell_writes = session.resources.memory.map, session.resources.memory.tell_writes
        ring = make_ring(session.features, queue, memory, queue.notes)
        if tell_writes is not None:
            ring = ToldRing(ring, tell_writes)
        broke = session.driver_broke
        if broke is not None:

            def tell(clause: str, seen: str) -> None:
                broke(clause, seen, queue.index)

            ring = watch_ring(session.features, ring, queue, memory, tell=tell, fresh=not session.resumed)
        if session.features & IN_ORDER and not self.device.in_order:
            ring = InOrderRing(ring)
        if queue.opened is not None:
            queue.opened(queue.index, ring)
        loop: IoLoop = session.resources.io_loop(_loop_of(self.device, queue.index))
        queue.counters.begin()
        return Queue(queue.index, ring, loop, queue.call.signal, counters=queue.counters)


def _loop_of(device: VirtioDevice, queue: int) -> str:
    if isinstance(device, LoopChoice):
        return device.loop_name(queue)
    return thread_loop(device.thread(queue)) if isinstance(device, Threads) else SHARED


@hookimpl
def acrn_dm_backend_types() -> Iterable[BackendType]:
    """The userspace backend serves every kind of device."""
    return [BackendType(name="vbs-u", summary="in this process, on an I/O thread", kinds={"*"}, create=VbsU)]
