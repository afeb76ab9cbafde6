"""virtio-balloon: memory that a guest gives up while it runs (virtio 5.5)."""

from collections.abc import Sequence

from acrn_dm import DeviceType, hookimpl
from acrn_dm_balloon.config import BalloonConfig
from acrn_dm_balloon.device import BalloonDevice


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``virtio-balloon``."""
    summary = "memory that the guest gives up and takes back, statistics, free page reports"
    return [DeviceType(name="virtio-balloon", summary=summary, config=BalloonConfig, create=BalloonDevice)]
