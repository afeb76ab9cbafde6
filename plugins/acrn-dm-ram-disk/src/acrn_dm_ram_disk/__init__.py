"""The block driver ``ram``: a disk in memory, whose queues are served in C."""

import mmap
from collections.abc import Sequence

import attrs

from acrn_dm import BlockDriver, BlockDriverType, ByteSize, DriverContext, hookimpl, option
from acrn_dm_ram_disk._engine import RamEngine


def _sectors(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value <= 0 or value % 512:
        raise ValueError(f"size {value}: expected whole sectors of 512 bytes")


@attrs.frozen(kw_only=True)
class Options:
    """The options of a RAM disk."""

    size: ByteSize = option(
        default=ByteSize(64 << 20), validator=_sectors, help="Of the disk; what is unused costs no memory."
    )


class RamDisk(BlockDriver):
    """A disk in memory, empty at each start."""

    parallel = True

    def __init__(self, options: Options, context: DriverContext) -> None:
        self.size = options.size
        self._memory: mmap.mmap | None = None

    def open(self) -> None:
        """See BlockDriver."""
        self._memory = mmap.mmap(-1, self.size)

    def engine(self, depth: int) -> RamEngine:
        """What serves a queue. The methods below get what engines are not asked for."""
        return RamEngine(self._disk)

    def read(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See BlockDriver."""
        for view in buffers:
            view[:] = self._disk[offset : offset + len(view)]
            offset += len(view)

    def write(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See BlockDriver."""
        for view in buffers:
            self._disk[offset : offset + len(view)] = bytes(view)
            offset += len(view)

    def discard(self, offset: int, length: int) -> None:
        """Give pages back; what is left of a page stays."""
        first, last = -(-offset // mmap.PAGESIZE), (offset + length) // mmap.PAGESIZE
        if first < last:
            self._disk.madvise(mmap.MADV_REMOVE, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)

    def close(self) -> None:
        """See BlockDriver."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    @property
    def _disk(self) -> mmap.mmap:
        assert self._memory is not None
        return self._memory


@hookimpl
def acrn_dm_block_driver_types() -> list[BlockDriverType]:
    """Offer ``ram``."""
    return [BlockDriverType(name="ram", summary="disk in memory, served in C", config=Options, create=RamDisk)]
