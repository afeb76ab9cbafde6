"""Guest memory in the pages that were asked for: huge ones, ordinary ones, or what suits the hypervisor."""

import logging
from collections.abc import Sequence

from acrn_dm.base.errors import HostError
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from acrn_dm.memory.hugepages import HugePages

log = logging.getLogger(__name__)


def allocate(ranges: Sequence[MemoryRange], *, hugepages: str, wanted: bool, dumped: bool) -> GuestMemory:
    """Allocate *ranges*: in huge pages if *hugepages* is ``on``, or if it is ``auto`` and they are *wanted*.

    *dumped*: core dumps have the memory. Raises HostError.
    """
    if hugepages == "on" or (hugepages == "auto" and wanted):
        try:
            return GuestMemory.allocate(ranges, HugePages(), dumped=dumped)
        except HostError as e:
            if hugepages == "on":
                raise
            log.warning("guest memory is in ordinary pages, which is slower: %s", e)
    return GuestMemory.allocate(ranges, dumped=dumped)


def shortage(size: int, *, hugepages: str) -> str | None:
    """Why *size* bytes can't be had in the huge pages that were asked for, as far as looking tells."""
    return HugePages().shortage(size) if hugepages == "on" else None
