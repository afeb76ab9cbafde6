"""vhost-user-device: any virtio device that another process is, whoever wrote it."""

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import DeviceType
from acrn_dm.devices.vhost_user.config import ForeignConfig
from acrn_dm.devices.vhost_user.device import ForeignDevice


@hookimpl
def acrn_dm_device_types() -> tuple[DeviceType, ...]:
    """Offer ``vhost-user-device``."""
    summary = "any virtio device of another process, by vhost-user"
    return (DeviceType(name="vhost-user-device", summary=summary, config=ForeignConfig, create=ForeignDevice),)
