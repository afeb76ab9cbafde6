"""One ring that is taken back from a running back-end and given to it again (RING_RESET), while it serves the
others.
"""

import attrs

from acrn_dm.backends.user import plan as user_plan
from acrn_dm.backends.user import talk as user_talk
from acrn_dm.backends.user.enable import RingSwitches
from acrn_dm.backends.user.exchange import Talk
from acrn_dm.backends.user.talk import Peer
from acrn_dm.virtio.backend import Session, SessionQueue


def without(session: Session, index: int) -> Session:
    """*session* when its queue *index* was reset."""
    return attrs.evolve(session, queues=tuple(queue for queue in session.queues if queue.index != index))


def joined(session: Session, queue: SessionQueue) -> Session:
    """*session* when *queue* is one of its queues again."""
    queues = sorted((*session.queues, queue), key=lambda one: one.index)
    return attrs.evolve(session, queues=tuple(queues))


def take_back(peer: Peer, switches: RingSwitches, index: int) -> Talk[None]:
    """When this is over *peer* uses nothing of ring *index* any more: GET_VRING_BASE ends what is in flight there."""
    yield from user_talk.stop_ring(peer, index)
    switches.drop(index)


def give(peer: Peer, switches: RingSwitches, session: Session, queue: SessionQueue, err_fd: int) -> Talk[None]:
    """Tell *peer* of *queue*, one of those of *session*, which begins; it is enabled where the driver wants it."""
    alone = attrs.evolve(session, queues=(queue,))
    yield from user_talk.set_up(peer, user_plan.make_plan(alone, None, used_before=False), err_fd)
    yield from switches.add(peer, queue)
