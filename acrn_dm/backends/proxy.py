"""A backend whose data plane is elsewhere: the half that stays in this process.

Queues that the device keeps (control queues) are served here as ever; the others are handed over: their kick eventfd is
the other side's to wait for, their call eventfd the other side's to write. While a call is not bound to an interrupt,
because its vector is masked or the driver uses the pin, an I/O loop passes it on.
"""

from collections.abc import Mapping

import attrs

from acrn_dm.backends.rings import check_rings
from acrn_dm.backends.vbs_u import VbsU
from acrn_dm.ring.position import RingPosition
from acrn_dm.virtio.backend import Backend, Session, SessionQueue
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import LocalQueues


class Proxy(Backend):
    """Base of such backends; they say how rings are handed over and taken back."""

    def __init__(self, device: VirtioDevice) -> None:
        super().__init__(device)
        self._local = VbsU(device)
        self._away: frozenset[int] = frozenset()  # queues that the other side has with this driver

    def start(self, session: Session) -> None:
        """The device first: it may have to prepare what the other side uses."""
        theirs = self.remote_queues(session.features)
        self._away = frozenset(theirs)
        away = tuple(queue for queue in session.queues if queue.index in theirs)
        here = tuple(queue for queue in session.queues if queue.index not in theirs)
        elsewhere = attrs.evolve(session, queues=away)
        check_rings(elsewhere)
        self._local.start(attrs.evolve(session, queues=here, poll_ns=None))  # all kicks are bound, so those here too
        loop = session.resources.io_loop("io")
        for queue in away:
            queue.call.forward(loop)
        self.start_remote(elsewhere)
        for queue in away:
            queue.kick.signal()  # drivers may fill rings before DRIVER_OK and need not kick for that

    def reset_queue(self, index: int) -> bool:
        """Whoever serves it lets go of it."""
        return self.reset_remote(index) if index in self._away else self._local.reset_queue(index)

    def queue_busy(self, index: int) -> bool:
        """Of the half here; the other side is done with a queue when ``reset_remote`` returns."""
        return self._local.queue_busy(index)

    def enable_queue(self, session: Session, queue: SessionQueue) -> bool:
        """On the side that it belongs to."""
        if queue.index not in self._away:
            return self._local.enable_queue(attrs.evolve(session, poll_ns=None), queue)
        check_rings(attrs.evolve(session, queues=(queue,)))
        queue.call.forward(session.resources.io_loop("io"))
        if not self.enable_remote(session, queue):
            return False
        queue.kick.signal()
        return True

    def cancel(self) -> None:
        """The half here; the other side stops in ``stop``, within its own bound."""
        self._local.cancel()

    @property
    def busy(self) -> bool:
        """Of the half here."""
        return self._local.busy

    def stop(self) -> Mapping[int, RingPosition | int]:
        """The other side first: it may still use what the device gave it."""
        positions: dict[int, RingPosition | int] = {}
        try:
            positions |= self.stop_remote()
        finally:
            positions |= self._local.stop()
        return positions

    def remote_queues(self, features: int) -> "list[int]":
        """Which of the device's queues are not served here, with a driver that negotiated *features*."""
        kept = self.device.local_queues(features) if isinstance(self.device, LocalQueues) else ()
        return [index for index in range(len(self.device.queue_sizes)) if index not in kept]

    def reset_remote(self, index: int) -> bool:
        """The other side stops queue *index* alone and is done with it; False where it can't. Raises HostError."""
        return False

    def enable_remote(self, session: Session, queue: SessionQueue) -> bool:
        """The other side serves *queue*, one of those of *session*, from its beginning; False where it can't beside the
        others. Raises HostError.
        """
        return False

    def start_remote(self, session: Session) -> None:
        """Let the other side serve the queues of *session*. Raises HostError; ``stop_remote`` is called then, too."""
        raise NotImplementedError  # every backend has its own

    def stop_remote(self) -> Mapping[int, RingPosition | int]:
        """The other side uses nothing any more; return where each queue is that it had. Idempotent."""
        raise NotImplementedError  # every backend has its own
