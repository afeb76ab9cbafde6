"""The built-in block drivers: our engines on a file, by name. ``PATH`` alone is ``driver=file,path=PATH``.

A disk on one of them serves its queues as a disk on a path does. Below another driver they are called from Python.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from acrn_dm.base.files.claims import Claim
from acrn_dm.base.records import frozen
from acrn_dm.contract.drivers.block import BlockDriver, Buffers
from acrn_dm.contract.options import option
from acrn_dm.contract.types import BlockDriverType, DriverContext
from acrn_dm.devices.virtio_blk import medium
from acrn_dm.devices.virtio_blk.config import BlkConfig, Range, read_range
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.native.engines._engine import BlkEngine
from acrn_dm.devices.virtio_blk.native.engines.choice import make_engine

DRIVERS = {
    "file": ("auto", "raw image or block device, by io_uring where the host has it, else by threads"),
    "io_uring": ("io_uring", "raw image or block device, by the kernel's io_uring"),
    "threads": ("threads", "raw image or block device, by C threads"),
    "python": ("python", "raw image or block device, by threads of Python's: slow, the reference"),
}


@frozen(kw_only=True)
class FileOptions:
    """The options that speak of a file."""

    path: Path = option(help="Raw image or block device.")
    nocache: bool = option(default=False, help="Bypass the host's page cache (O_DIRECT).")
    secure_erase: bool = option(default=False, help="Let the guest erase sectors for good; a block device that can.")
    range: Range | None = option(
        default=None, converter=read_range, metavar="STARTLBA/SIZE", help="Show, and lock, only this part of the image."
    )
    share: bool = option(default=False, help="Others may write the image, too, if they say the same.")


class FileDriver(BlockDriver):
    """A raw image or a block device. *aio* says which engines it has."""

    parallel = True

    def __init__(self, aio: str, options: FileOptions, context: DriverContext) -> None:
        self.aio = aio
        self.options = options
        self._config = self.disk_options(BlkConfig(nodisk=True, ro=context.read_only))
        self._device = context.device
        self._opened: Image | None = None

    def disk_options(self, config: BlkConfig) -> BlkConfig:
        """*config* of a disk with this driver, as it is for one on the path."""
        given = attrs.asdict(self.options, recurse=False)
        return attrs.evolve(config, driver=None, nodisk=False, aio=self.aio, **given)

    def check(self) -> list[str]:
        """Whether the image can be used."""
        why = medium.problem(self._config)
        return [] if why is None else [why]

    def claims(self) -> Sequence[Claim]:
        """The image."""
        return medium.claims(self._config)

    def open(self) -> None:
        """Open and lock it."""
        self._opened = image = medium.open_image(self._config)
        self.size, self.logical, self.physical = image.size, image.sectors.logical, image.sectors.physical

    def read(self, offset: int, buffers: Buffers) -> None:
        """See BlockDriver."""
        self._image.read(buffers, offset)

    def write(self, offset: int, buffers: Buffers) -> None:
        """See BlockDriver."""
        self._image.write(buffers, offset, durable=False)

    def flush(self) -> None:
        """See BlockDriver."""
        self._image.flush()

    def discard(self, offset: int, length: int) -> None:
        """See BlockDriver."""
        self._image.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, unmap: bool) -> None:
        """See BlockDriver."""
        self._image.write_zeroes(offset, length, unmap=unmap, durable=False)

    def engine(self, depth: int) -> BlkEngine:
        """See BlockDriver."""
        return make_engine(self.aio, self._image.fd, depth, name=self._device)

    def close(self) -> None:
        """See BlockDriver."""
        image, self._opened = self._opened, None
        if image is not None:
            image.close()

    @property
    def _image(self) -> Image:
        assert self._opened is not None
        return self._opened


def driver_types() -> tuple[BlockDriverType, ...]:
    """One for each engine, and one that takes what the host has."""
    return tuple(
        BlockDriverType(name=name, summary=summary, config=FileOptions, create=_maker(aio))
        for name, (aio, summary) in DRIVERS.items()
    )


def _maker(aio: str) -> Callable[[FileOptions, DriverContext], FileDriver]:
    return functools.partial(FileDriver, aio)
