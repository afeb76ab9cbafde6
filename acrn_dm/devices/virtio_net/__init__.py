"""virtio-net: a network card on a tap or macvtap."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import BackendType, DeviceType, PacketDriverType
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.devices.virtio_net.drivers.tap import driver_types

if TYPE_CHECKING:
    from acrn_dm.devices.virtio_net.vhost import NetVhost


def create_vhost(device: NetDevice) -> "NetVhost":
    """The kernel's backend of *device*, imported for who chooses it."""
    from acrn_dm.devices.virtio_net.vhost import NetVhost  # noqa: PLC0415

    return NetVhost(device)


def vhost_problem() -> str | None:
    """Why the kernel can't move the frames, in one line; None if it can."""
    from acrn_dm.devices.virtio_net.vhost import NetVhost  # noqa: PLC0415

    return NetVhost.problem()


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
    return [BackendType(name="vhost", summary=summary, kinds=kinds, create=create_vhost, probe=vhost_problem)]
