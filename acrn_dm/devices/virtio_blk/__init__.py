"""virtio-blk: a disk on a raw image or block device."""

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import DeviceType
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.device import BlkDevice


@hookimpl
def acrn_dm_device_types() -> tuple[DeviceType, ...]:
    """Offer ``virtio-blk``."""
    summary = "disk on a raw image or block device"
    return (DeviceType(name="virtio-blk", summary=summary, config=BlkConfig, create=BlkDevice),)
