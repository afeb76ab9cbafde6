"""A relayed queue whose chains pass in C (``native._relay``): what is left to Python, connections and their end."""

import select
import time
from collections.abc import Callable

import attrs

from acrn_dm.backends.user.native._relay import RelayPlane
from acrn_dm.backends.user.ways.shadow import ShadowArea
from acrn_dm.backends.wire.message import PeerError
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import drain
from acrn_dm.base.records import define
from acrn_dm.ring.ring import RingFormat
from acrn_dm.virtio.queue import Queue


@define(eq=False)
class NativeRelayQueue:
    """One queue; as ``relay.RelayQueue``, which does the same in Python."""

    queue: Queue
    failed: Callable[[HostError], None]
    form: RingFormat
    plane: RelayPlane
    _call_fd: int = attrs.field(default=-1, init=False)

    def connect(self, area: ShadowArea) -> None:
        """A back-end is going to use *area*: make everything in flight available there."""
        self.disconnect()
        place = area.queues[self.queue.index]
        layout = place.layout(self.form, self.queue.size)
        offsets = {"desc": layout.desc, "avail": layout.avail, "used": layout.used}
        with self.queue.loop.held():
            self._call_fd = place.call_fd
            self.queue.loop.attend(place.call_fd, self._complained)
            self.plane.connect(area.memory, **offsets, kick_fd=place.kick_fd, call_fd=place.call_fd)

    def disconnect(self) -> None:
        """Nobody uses the shadow ring any more."""
        self._listen_no_more()
        with self.queue.loop.held():
            self.plane.disconnect()

    def finish(self, deadline: float, alive_fd: int) -> int:
        """Wait for what is in flight while the connection *alive_fd* lasts; returns how many are still out.

        The driver's ring must not be served any more. Raises PeerError.
        """
        call_fd = self._listen_no_more()
        if call_fd < 0:
            return self.plane.in_flight
        with self.queue.loop.held():
            self.plane.look_no_more()
        poller = select.poll()
        poller.register(call_fd, select.POLLIN)
        poller.register(alive_fd, 0)  # a hang-up is always reported
        try:
            self._answer()
            while self.plane.in_flight:
                patience = deadline - time.monotonic()  # also with an eventfd that is always readable
                ready = dict(poller.poll(patience * 1000)) if patience > 0 else {}
                if not ready or alive_fd in ready:
                    break
                drain(call_fd)
                self._answer()
        finally:
            self.disconnect()
        return self.plane.in_flight

    @property
    def owed(self) -> int:
        """Chains that the back-end has not returned."""
        return self.plane.in_flight

    def end(self) -> None:
        """Nothing is passed on any more: the plane is stopped, and nobody is connected."""
        self.plane.let_go()

    def notify(self) -> None:
        """Tell the back-end to look at the ring."""
        with self.queue.loop.held():
            self.plane.notify()

    def _listen_no_more(self) -> int:
        call_fd, self._call_fd = self._call_fd, -1
        if call_fd >= 0:
            self.queue.loop.remove(call_fd)
        return call_fd

    def _answer(self) -> None:
        with self.queue.loop.held():
            self.plane.answer()
            complaint = self.plane.complaint()
        if complaint is not None:
            raise PeerError(complaint)

    def _complained(self) -> None:
        complaint = self.plane.complaint()
        if complaint is not None:
            self.failed(PeerError(complaint))
