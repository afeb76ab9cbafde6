"""The driver of a disk before and while it is opened: what it lacks, what it claims, and how large it says it is.

The disk on a driver of ours that has a file is a disk on that file.
"""

import contextlib
from collections.abc import Sequence

from acrn_dm.base.errors import AcrnDmError, ConfigError, PluginError
from acrn_dm.base.files.claims import Claim
from acrn_dm.base.sandbox.needs import BLOCK, IO_URING, Needs
from acrn_dm.contract.drivers.block import BlockDriver
from acrn_dm.contract.drivers.guarded import asked, lines
from acrn_dm.contract.types import ChosenDriver
from acrn_dm.devices.virtio_blk import medium
from acrn_dm.devices.virtio_blk.config import SECTOR, BlkConfig, SectorSize
from acrn_dm.devices.virtio_blk.drivers.file import FileDriver
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.virtio.optional import Sandboxed
from acrn_dm.virtio.placement import Placement, at_socket

MAX_BLOCK = 1 << 20


def plain(config: BlkConfig, chosen: ChosenDriver | None) -> tuple[BlkConfig, ChosenDriver | None]:
    """The options of a disk and its driver, if it is none of ours: of these the disk needs the options only."""
    if chosen is not None and isinstance(chosen.driver, FileDriver):
        return chosen.driver.disk_options(config), None
    if (config.driver is None) != (chosen is None):
        raise ConfigError("a driver can't be chosen here", option="driver", value=config.driver)
    return config, chosen


def placement(config: BlkConfig, chosen: ChosenDriver | None) -> Placement:
    """Another process, if asked for; the driver, or the image's path."""
    if config.vhost_user is not None:
        return at_socket(config.vhost_user)
    if chosen is not None:
        return Placement(text=f"driver {chosen.name}")
    return Placement(text=str(config.path) if config.path else "no disk")


def problems(config: BlkConfig, chosen: ChosenDriver | None, name: str) -> list[str]:
    """Why the disk *name* can't be used on this host. Raises PluginError."""
    if chosen is not None:
        return lines(chosen)
    why = medium.problem(config) if config.vhost_user is None else None
    return [] if why is None else [f"{name}: {why}"]


def claims(config: BlkConfig, chosen: ChosenDriver | None) -> Sequence[Claim]:
    """The image, or what the driver says. Raises PluginError."""
    return medium.claims(config) if chosen is None else asked(chosen, _of(chosen).claims)


def open_image(config: BlkConfig, chosen: ChosenDriver | None) -> Image | None:
    """Open what there is. Raises ConfigError, HostError, PluginError."""
    if chosen is not None:
        return open_driver(chosen, config.sectorsize)
    return medium.open_image(config) if config.path is not None else None


def open_driver(chosen: ChosenDriver, sectors: SectorSize | None) -> Image:
    """Open a driver; *sectors* are what the user wants the guest to see. Raises ConfigError, HostError, PluginError."""
    from acrn_dm.devices.virtio_blk.drivers.faults import Blame  # noqa: PLC0415  # for disks that have one
    from acrn_dm.devices.virtio_blk.drivers.image import DriverImage  # noqa: PLC0415

    driver = _of(chosen)
    try:
        asked(chosen, driver.open)
        sizes = sectors or _sizes(chosen, driver)
        size = _size(chosen, driver, sizes)
    except AcrnDmError:
        with contextlib.suppress(AcrnDmError):  # the first reason is the better one
            asked(chosen, driver.close)
        raise
    blame = Blame(chosen.blamed)
    return DriverImage(fd=-1, size=size, sectors=sizes, is_block_device=False, driver=driver, blame=blame)


def sandbox_needs(config: BlkConfig, chosen: ChosenDriver | None, image: Image | None) -> Needs:
    """What a disk does when it is open. Raises PluginError."""
    if chosen is not None:
        return asked(chosen, chosen.driver.sandbox_needs) if isinstance(chosen.driver, Sandboxed) else Needs()
    groups = [IO_URING] if config.aio in ("auto", "io_uring") else []
    if image is None or image.node is None:
        return Needs(groups=groups)
    return Needs(groups=[*groups, BLOCK], reads=[image.node.folder])


def _of(chosen: ChosenDriver) -> BlockDriver:
    assert isinstance(chosen.driver, BlockDriver)
    return chosen.driver


def _sizes(chosen: ChosenDriver, driver: BlockDriver) -> SectorSize:
    for name, value in (("logical", driver.logical), ("physical", driver.physical)):
        good = _whole(value) and SECTOR <= value <= MAX_BLOCK and not value & (value - 1)
        if not good:
            text = f"{name} is {value!r}, not a power of two from {SECTOR} to {MAX_BLOCK}"
            raise PluginError(text, provenance=chosen.blamed)
    return SectorSize(logical=driver.logical, physical=max(driver.logical, driver.physical))


def _size(chosen: ChosenDriver, driver: BlockDriver, sizes: SectorSize) -> int:
    size = driver.size
    if not _whole(size) or size <= 0 or size % SECTOR or size >= 1 << 63:
        raise PluginError(f"size is {size!r}, not a number of bytes in whole sectors", provenance=chosen.blamed)
    if size % sizes.logical:
        raise ConfigError(f"its {size} bytes are no whole blocks of {sizes.logical}", option=chosen.blamed)
    return size


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
