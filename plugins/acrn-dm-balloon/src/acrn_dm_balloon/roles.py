"""The queues' numbers, on which drivers do not agree.

The specification numbers them whatever was negotiated (5.5.2). Linux counts those that it uses, as QEMU does those that
it offers; so without free page hinting its queue for reports is the one before. Nothing else is there then: both
are for reports.
"""

import enum

STATS_VQ, DEFLATE_ON_OOM, PAGE_POISON, PAGE_REPORTING = 1 << 1, 1 << 2, 1 << 4, 1 << 5  # 5.5.3


class Role(enum.Enum):
    """What a queue is for; the value is the specification's number."""

    INFLATE = 0
    DEFLATE = 1
    STATS = 2
    HINTS = 3
    REPORTS = 4


def roles(features: int) -> dict[int, Role]:
    """The role of each queue under a driver that negotiated *features*."""
    needed = {Role.STATS: STATS_VQ, Role.REPORTS: PAGE_REPORTING}
    used = [role for role in Role if role in (Role.INFLATE, Role.DEFLATE) or features & needed.get(role, 0)]
    return {**dict(enumerate(used)), **{role.value: role for role in used}}
