"""virtio-console: consoles and named serial ports on stdio, terminals, files and sockets."""

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import DeviceType
from acrn_dm.devices.virtio_console.config import ConsoleConfig
from acrn_dm.devices.virtio_console.device import ConsoleDevice


@hookimpl
def acrn_dm_device_types() -> tuple[DeviceType, ...]:
    """Offer ``virtio-console``."""
    summary = "consoles and serial ports"
    return (DeviceType(name="virtio-console", summary=summary, config=ConsoleConfig, create=ConsoleDevice),)
