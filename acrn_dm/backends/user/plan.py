"""The plan for a vhost-user back-end, made of a driver's queues: memory regions, and rings inside them.

The addresses given out are no addresses of this process. Ring addresses are told relative to a region's "user" address,
which only has to be the same in both places; a constant offset to guest addresses tells a back-end nothing about us.
"""

from acrn_dm.backends.user.talk import Peer, Plan, Region, Vring
from acrn_dm.backends.user.terms import AfterLoss, Terms
from acrn_dm.backends.user.ways.shadow import ShadowArea
from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.payload import MAX_QUEUES
from acrn_dm.base.errors import HostError
from acrn_dm.memory.guest_memory import GuestMemory
from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.position import RingPosition
from acrn_dm.virtio import features
from acrn_dm.virtio.backend import Session, SessionQueue

USER_BASE = 1 << 46  # above any guest address, and never 0, which some back-ends take for "no address"
SHADOW_GPA = 1 << 45  # where no guest has memory


def make_plan(session: Session, area: ShadowArea | None, *, used_before: bool) -> Plan:
    """What ``talk`` tells about the driver's own rings; *used_before*: an earlier back-end has used them.

    *area*, too, if the connection may need it later: memory is told once.
    """
    memory = session.resources.memory
    positions = {q.index: q.position for q in session.queues} | (used_positions(session) if used_before else {})
    vrings = tuple(_vring(queue, positions[queue.index]) for queue in session.queues)
    return Plan(features=session.features, regions=_regions(memory, area), vrings=vrings)


def make_relay_plan(session: Session, area: ShadowArea) -> Plan:
    """What ``talk`` tells about shadow rings in *area*."""
    vrings = tuple(_shadow_vring(session, queue, area) for queue in session.queues)
    regions = _regions(session.resources.memory, area)
    return Plan(features=session.features & ~features.EVENT_IDX, regions=regions, vrings=vrings)


def _shadow_vring(session: Session, queue: SessionQueue, area: ShadowArea) -> Vring:
    form, place, base = ring_format(session.features), area.queues[queue.index], USER_BASE + SHADOW_GPA
    layout = place.layout(form, queue.size)
    return Vring(
        index=queue.index,
        size=queue.size,
        desc=base + layout.desc if form.shadows_descriptors else USER_BASE + queue.desc,
        avail=base + layout.avail,
        used=base + layout.used,
        base=form.start.base,
        kick_fd=place.kick_fd,
        call_fd=place.call_fd,
    )


def check(session: Session) -> None:
    """Raise HostError for queues that can't be told."""
    for queue in session.queues:
        if queue.index >= MAX_QUEUES:
            raise HostError(f"queue {queue.index}: vhost-user has {MAX_QUEUES}")


def check_peer(session: Session, terms: Terms, peer: Peer) -> None:
    """Raise PeerError for a back-end that can't serve the driver: it chose from the offer of the first one."""
    lost = terms.needed_of_peer(session.features) & ~peer.features
    if lost:
        raise PeerError(f"it lacks what the driver has accepted: {', '.join(features.names(terms.device_id, lost))}")
    used = 1 + max((queue.index for queue in session.queues), default=-1)
    shortage = terms.shortage(used, peer.features, peer.queues, "the driver uses")
    if shortage is not None:
        raise PeerError(shortage)


def check_resumable(session: Session, terms: Terms, *, takes_notes: bool) -> None:
    """Raise PeerError for rings that an earlier back-end has used and the next one can't take on; *takes_notes*: it
    finds there what was in flight.
    """
    if takes_notes:
        return
    if not tells_used(session):
        raise PeerError("an earlier back-end used the rings, which do not tell where it was")
    if terms.after_loss is AfterLoss.RESET:
        raise PeerError("an earlier back-end used the rings, and without INFLIGHT_SHMFD nobody knows what it was doing")
    if terms.tracked and not idle(session):
        raise PeerError("requests were in flight, and without INFLIGHT_SHMFD nobody knows which")


def owes(session: Session, terms: Terms, *, handed_over: bool) -> bool:
    """Whether the back-end of *session*, which is gone, has left what no other can go on with. *handed_over*: it has
    used the rings.
    """
    if terms.after_loss is AfterLoss.RESET:
        return handed_over
    lost = handed_over if not tells_used(session) else terms.tracked
    return lost and not idle(session)


def used_positions(session: Session) -> dict[int, RingPosition]:
    """Where each ring is to be gone on with when nobody tells: behind what was returned last. Rings of a format that
    does not say that are left out.
    """
    memory, form = session.resources.memory, ring_format(session.features)
    found = {queue.index: form.used_position(memory, queue.layout) for queue in session.queues}
    return {index: position for index, position in found.items() if position is not None}


def tells_used(session: Session) -> bool:
    """Whether the rings say what of them was returned, so that they can be gone on with when nobody tells."""
    return len(used_positions(session)) == len(session.queues)


def idle(session: Session) -> bool:
    """Whether every chain that was made available has been returned."""
    memory, form = session.resources.memory, ring_format(session.features)
    return all(form.idle(memory, queue.layout) for queue in session.queues)


def _regions(memory: GuestMemory, area: ShadowArea | None) -> tuple[Region, ...]:
    ram = tuple(Region(gpa=r.gpa, size=r.size, user=USER_BASE + r.gpa, fd=r.fd) for r in memory.regions)
    if area is None:
        return ram
    return (*ram, Region(gpa=SHADOW_GPA, size=area.size, user=USER_BASE + SHADOW_GPA, fd=area.fd))


def _vring(queue: SessionQueue, position: RingPosition) -> Vring:
    return Vring(
        index=queue.index,
        size=queue.size,
        desc=USER_BASE + queue.desc,
        avail=USER_BASE + queue.avail,
        used=USER_BASE + queue.used,
        base=position.base,
        kick_fd=queue.kick.fd,
        call_fd=queue.call.fd,
    )
