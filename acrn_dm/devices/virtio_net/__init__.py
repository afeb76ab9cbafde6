"""virtio-net: a network card on a tap or macvtap."""

from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.hookspecs import hookimpl
from acrn_dm.types import DeviceType


@hookimpl
def acrn_dm_device_types() -> tuple[DeviceType, ...]:
    """Offer ``virtio-net``."""
    return (DeviceType(name="virtio-net", summary="network card on a tap", config=NetConfig, create=NetDevice),)
