"""What is checked about a driver's rings before somebody outside this process is told where they are."""

from collections.abc import Iterable

from acrn_dm.base.errors import GuestError
from acrn_dm.memory.guest_memory import GuestMemory
from acrn_dm.virtio.backend import SessionQueue

EVENT_BYTES = 2  # used_event and avail_event, 2.7.10


def check_rings(memory: GuestMemory, queues: Iterable[SessionQueue]) -> None:
    """Raise GuestError for a part of a ring that is not aligned (2.7) or not in one piece of RAM."""
    for queue in queues:
        parts = (
            ("descriptor table", queue.desc, 16 * queue.size, 16),
            ("available ring", queue.avail, 4 + 2 * queue.size + EVENT_BYTES, 2),
            ("used ring", queue.used, 4 + 8 * queue.size + EVENT_BYTES, 4),
        )
        for what, gpa, length, alignment in parts:
            inside = any(r.gpa <= gpa and gpa + length <= r.gpa + r.size for r in memory.regions)
            if not inside or gpa % alignment:
                raise GuestError(f"queue {queue.index}: the {what} at {gpa:#x} is not in RAM or not aligned")
