"""Checks of a driver's rings, made before somebody outside this process is told where they are."""

from acrn_dm.base.errors import GuestError
from acrn_dm.ring.factory import ring_format
from acrn_dm.virtio.backend import Session


def check_rings(session: Session) -> None:
    """Raise GuestError for a part of a ring that is not aligned (2.7) or not in one piece of RAM."""
    regions = session.resources.memory.regions
    for queue in session.queues:
        for part in ring_format(session.features).parts(queue.layout):
            inside = any(r.gpa <= part.gpa and part.gpa + part.length <= r.gpa + r.size for r in regions)
            if not inside or part.gpa % part.alignment:
                raise GuestError(f"queue {queue.index}: the {part.name} at {part.gpa:#x} is not in RAM or not aligned")
