"""Enabled rings: which ones a back-end has been told of, and how it is told when the driver wants others
(SET_VRING_ENABLE).

A driver enables all of its queues before DRIVER_OK and may use only some: VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, which is
answered in this process. The rings of the other pairs are set up like all and stay disabled: a back-end puts no frames
into them and drops what is sent through them.

Used under the ``ConversationLock``. While something else is being said the news waits; whoever said it calls ``follow``
at its end.
"""

from collections.abc import Callable, Iterable

from acrn_dm.backends.user import talk as user_talk
from acrn_dm.backends.user.exchange import Talk
from acrn_dm.backends.user.link import Link
from acrn_dm.backends.user.talk import Peer
from acrn_dm.virtio.backend import SessionQueue
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import QueueSwitch

Done = Callable[[], None]


def wanted_queues(device: VirtioDevice) -> Callable[[int], bool]:
    """Tells of a queue's number whether the driver uses it at the moment: all, where the device does not say."""
    return device.wants_queue if isinstance(device, QueueSwitch) else lambda index: True


class RingSwitches:
    """The switches of one connection's rings. *wants* says whether the driver uses the queue of that number."""

    def __init__(self, link: Link, wants: Callable[[int], bool]) -> None:
        self._link = link
        self._wants = wants
        self._peer: Peer | None = None  # the one that runs rings
        self._queues: dict[int, SessionQueue] = {}
        self._told: dict[int, bool] = {}
        self._waiting: list[Done] = []

    def switch_on(self, peer: Peer, queues: Iterable[SessionQueue]) -> Talk[None]:
        """*peer* has been told of the rings of *queues*; tell it to use those that are wanted."""
        self._queues = {queue.index: queue for queue in queues}
        wanted = {index: self._wants(index) for index in self._queues}
        yield from user_talk.enable(peer, {index: True for index, wants in wanted.items() if wants})
        self._peer, self._told = peer, wanted

    def add(self, peer: Peer, queue: SessionQueue) -> Talk[None]:
        """*peer* has been told of one ring more; tell it to use that if it is wanted."""
        wanted = self._wants(queue.index)
        if wanted:
            yield from user_talk.enable(peer, {queue.index: True})
        self._queues[queue.index], self._told[queue.index] = queue, wanted

    def drop(self, index: int) -> None:
        """Ring *index* was taken back."""
        self._queues.pop(index, None)
        self._told.pop(index, None)

    def forget(self) -> None:
        """Nobody uses the rings any more; the next one is told what is wanted then."""
        self._peer = None
        self.follow()

    def changed(self, done: Done) -> None:
        """Others are wanted; call *done* when the back-end has confirmed that, or there is none."""
        self._waiting.append(done)
        self.follow()

    def follow(self) -> None:
        """Tell the back-end what has changed."""
        if self._link.busy:
            return
        peer, changes = self._peer, self._changes()
        if peer is not None and changes:
            self._link.begin(user_talk.enable(peer, changes), lambda _: self._confirmed(changes))
            return
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def _changes(self) -> dict[int, bool]:
        return {index: wants for index, told in self._told.items() if (wants := self._wants(index)) != told}

    def _confirmed(self, changes: dict[int, bool]) -> None:
        self._told |= changes
        for index, enabled in changes.items():
            if enabled:
                self._queues[index].kick.signal()  # one that came while the ring was disabled may be gone
        self.follow()
