"""virtio-input: keyboards, mice, tablets and the like (virtio 5.8), the host's or played by lines of text."""

from collections.abc import Sequence

from acrn_dm import DeviceType, hookimpl
from acrn_dm_input.config import InputConfig
from acrn_dm_input.device import InputDevice


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``virtio-input``."""
    summary = "a keyboard, mouse or tablet: the host's, or played by a script"
    return [DeviceType(name="virtio-input", summary=summary, config=InputConfig, create=InputDevice)]
