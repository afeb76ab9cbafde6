"""virtio-blk: a disk on a raw image or block device."""

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import BlockDriverType, DeviceType
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.device import BlkDevice
from acrn_dm.devices.virtio_blk.drivers.file import driver_types


@hookimpl
def acrn_dm_device_types() -> tuple[DeviceType, ...]:
    """Offer ``virtio-blk``."""
    summary = "disk on a raw image or block device"
    return (DeviceType(name="virtio-blk", summary=summary, config=BlkConfig, create=BlkDevice, drivers="block"),)


@hookimpl
def acrn_dm_block_driver_types() -> tuple[BlockDriverType, ...]:
    """Offer our engines on a file."""
    return driver_types()
