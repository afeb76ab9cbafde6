"""virtio-fs: a folder of the host as a file system of the guest, which another process (virtiofsd) serves."""

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import DeviceType
from acrn_dm.devices.virtio_fs.config import FsConfig
from acrn_dm.devices.virtio_fs.device import FsDevice


@hookimpl
def acrn_dm_device_types() -> tuple[DeviceType, ...]:
    """Offer ``virtio-fs``."""
    summary = "a folder of the host, served by virtiofsd"
    return (DeviceType(name="virtio-fs", summary=summary, config=FsConfig, create=FsDevice),)
