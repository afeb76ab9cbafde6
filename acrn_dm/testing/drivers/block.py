"""The bench for a block driver: reads and writes bytes, as a disk does that has no guest.

::

    with BlockBench("ram,size=1M", plugins=[my_plugin]) as disk:
        disk.write(512, b"x" * 512)
        assert disk.read(512, 512) == b"x" * 512
"""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, cast

from acrn_dm.contract.drivers.block import BlockDriver
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.drivers.image import DriverImage
from acrn_dm.devices.virtio_blk.drivers.opening import open_driver, problems
from acrn_dm.testing.drivers import chosen


class BlockBench:
    """A block driver, open: *text* is its name and its options, *plugins* are what offers it (and others below it).

    Every call waits until it is done. It raises OSError as the guest would be answered; what is the driver's fault is
    one with a text that names it.
    """

    def __init__(self, text: str, *, plugins: Iterable[object] = (), read_only: bool = False) -> None:
        """Raises ConfigError, HostError and PluginError, as the start of a machine does."""
        self._chosen = chosen("block", text, plugins, read_only=read_only)
        self.problems = problems(BlkConfig(nodisk=True), self._chosen, "bench")
        self._image = cast(DriverImage, open_driver(self._chosen, None))

    @property
    def driver(self) -> BlockDriver:
        """The driver itself, to look at."""
        return self._image.driver

    @property
    def size(self) -> int:
        """Bytes, as the guest is told."""
        return self._image.size

    def read(self, offset: int, length: int, *, pieces: Sequence[int] = ()) -> bytes:
        """What is at byte *offset*; the driver gets buffers of so many bytes each as *pieces* says."""
        space = bytearray(b"\xa5" * length)
        self._image.read(_cut(memoryview(space), pieces), offset)
        return bytes(space)

    def write(self, offset: int, data: bytes, *, pieces: Sequence[int] = (), durable: bool = False) -> None:
        """Store *data* at byte *offset*, with *durable* to stay there."""
        self._image.write(_cut(memoryview(bytearray(data)), pieces), offset, durable=durable)

    def flush(self) -> None:
        """Make what was written last."""
        self._image.flush()

    def discard(self, offset: int, length: int) -> None:
        """Forget a range."""
        self._image.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Let a range read as zeroes."""
        self._image.write_zeroes(offset, length, unmap=unmap, durable=False)

    def close(self) -> None:
        """Close it."""
        self._image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cut(view: memoryview, pieces: Sequence[int]) -> list[memoryview]:
    """*view* in stretches of *pieces* bytes; what is left is one more."""
    found = []
    for size in pieces:
        found.append(view[:size])
        view = view[size:]
    return [part for part in (*found, view) if len(part)]
