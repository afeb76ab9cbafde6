"""virtio-i2c: a bus of the host, or a simulated one with devices in Python (virtio 5.16)."""

from collections.abc import Sequence

from acrn_dm import DeviceType, hookimpl
from acrn_dm_i2c.config import I2cConfig
from acrn_dm_i2c.device import I2cDevice
from acrn_dm_i2c.slave import Slave as Slave


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``virtio-i2c``."""
    summary = "an I2C bus: the host's, or a simulated one"
    return [DeviceType(name="virtio-i2c", summary=summary, config=I2cConfig, create=I2cDevice)]
