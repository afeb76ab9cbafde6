"""virtio-gpio: lines of a chip of the host, or simulated ones (virtio 5.18)."""

from collections.abc import Sequence

from acrn_dm import DeviceType, hookimpl
from acrn_dm_gpio.config import GpioConfig
from acrn_dm_gpio.device import GpioDevice


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``virtio-gpio``."""
    summary = "GPIO lines: those of a chip of the host, or simulated ones"
    return [DeviceType(name="virtio-gpio", summary=summary, config=GpioConfig, create=GpioDevice)]
