"""The plan for a vhost-user back-end, made of a driver's queues: memory regions, and rings inside them.

The addresses given out are no addresses of this process. Ring addresses are told relative to a region's "user" address,
which only has to be the same in both places; a constant offset to guest addresses tells a back-end nothing about us.
"""

from acrn_dm.backends.user.shadow import ShadowArea
from acrn_dm.backends.user.talk import Plan, Region, Vring
from acrn_dm.backends.wire.payload import MAX_QUEUES
from acrn_dm.base.errors import HostError
from acrn_dm.memory.guest_memory import GuestMemory
from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.position import RingPosition
from acrn_dm.virtio.backend import Session, SessionQueue
from acrn_dm.virtio.features import EVENT_IDX

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
    return Plan(features=session.features & ~EVENT_IDX, regions=regions, vrings=vrings)


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
