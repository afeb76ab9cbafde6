"""virtio-net: a network card on a tap or macvtap."""

from collections.abc import Iterable

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import BackendType, DeviceType, PacketDriverType
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.devices.virtio_net.drivers.tap import driver_types
from acrn_dm.devices.virtio_net.vhost import NetVhost


@hookimpl
def acrn_dm_device_types() -> tuple[DeviceType, ...]:
    """Offer ``virtio-net``."""
    summary = "network card on a tap"
    return (DeviceType(name="virtio-net", summary=summary, config=NetConfig, create=NetDevice, drivers="packet"),)


@hookimpl
def acrn_dm_packet_driver_types() -> Iterable[PacketDriverType]:
    """Offer taps."""
    return driver_types()


@hookimpl
def acrn_dm_backend_types() -> Iterable[BackendType]:
    """Offer ``vhost`` for it."""
    summary = "in the kernel (vhost-net)"
    kinds = {"virtio-net"}
    return [BackendType(name="vhost", summary=summary, kinds=kinds, create=NetVhost, probe=NetVhost.problem)]
