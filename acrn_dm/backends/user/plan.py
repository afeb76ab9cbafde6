"""From a driver's queues to what a vhost-user back-end is told: memory regions, and rings inside them.

The addresses given out are no addresses of this process. Ring addresses are told relative to a region's "user" address,
which only has to be the same in both places; a constant offset to guest addresses tells a back-end nothing about us.
"""

from acrn_dm.backends.user.shadow import ShadowArea
from acrn_dm.backends.user.talk import Plan, Region, Vring
from acrn_dm.backends.wire.payload import MAX_QUEUES
from acrn_dm.base.errors import HostError
from acrn_dm.memory.guest_memory import GuestMemory
from acrn_dm.virtio.backend import Session, SessionQueue
from acrn_dm.virtio.features import EVENT_IDX

USER_BASE = 1 << 46  # above any guest address, and never 0, which some back-ends take for "no address"
SHADOW_GPA = 1 << 45  # where no guest has memory


def make_plan(session: Session, area: ShadowArea | None, *, used_before: bool) -> Plan:
    """What ``user_talk`` tells about the driver's own rings; *used_before*: an earlier back-end has used them.

    *area*, too, if the connection may need it later: memory is told once.
    """
    memory = session.resources.memory
    vrings = tuple(_vring(memory, queue, used_before) for queue in session.queues)
    return Plan(features=session.features, regions=_regions(memory, area), vrings=vrings)


def make_relay_plan(session: Session, area: ShadowArea) -> Plan:
    """What ``user_talk`` tells about shadow rings in *area*."""
    base = USER_BASE + SHADOW_GPA
    vrings = tuple(
        Vring(
            index=queue.index,
            size=queue.size,
            desc=USER_BASE + queue.desc,
            avail=base + area.queues[queue.index].avail,
            used=base + area.queues[queue.index].used,
            base=0,
            kick_fd=area.queues[queue.index].kick_fd,
            call_fd=area.queues[queue.index].call_fd,
        )
        for queue in session.queues
    )
    regions = _regions(session.resources.memory, area)
    return Plan(features=session.features & ~EVENT_IDX, regions=regions, vrings=vrings)


def check(session: Session) -> None:
    """Raise HostError for queues that can't be told."""
    for queue in session.queues:
        if queue.index >= MAX_QUEUES:
            raise HostError(f"queue {queue.index}: vhost-user has {MAX_QUEUES}")


def used_idx(memory: GuestMemory, queue: SessionQueue) -> int:
    """How many chains were returned so far, modulo 2^16."""
    return int.from_bytes(memory.read(queue.used + 2, 2), "little")


def idle(session: Session) -> bool:
    """Whether every chain that was made available has been returned."""
    memory = session.resources.memory
    return all(
        int.from_bytes(memory.read(queue.avail + 2, 2), "little") == used_idx(memory, queue) for queue in session.queues
    )


def _regions(memory: GuestMemory, area: ShadowArea | None) -> tuple[Region, ...]:
    ram = tuple(Region(gpa=r.gpa, size=r.size, user=USER_BASE + r.gpa, fd=r.fd) for r in memory.regions)
    if area is None:
        return ram
    return (*ram, Region(gpa=SHADOW_GPA, size=area.size, user=USER_BASE + SHADOW_GPA, fd=area.fd))


def _vring(memory: GuestMemory, queue: SessionQueue, used_before: bool) -> Vring:
    return Vring(
        index=queue.index,
        size=queue.size,
        desc=USER_BASE + queue.desc,
        avail=USER_BASE + queue.avail,
        used=USER_BASE + queue.used,
        base=used_idx(memory, queue) if used_before else queue.next_avail,
        kick_fd=queue.kick.fd,
        call_fd=queue.call.fd,
    )
