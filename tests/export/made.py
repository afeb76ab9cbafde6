"""Devices as they are served, of the built-in kinds."""

from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.export.making import make_device
from acrn_dm.virtio.device import VirtioDevice


def made(text: str) -> VirtioDevice:
    """The device of *text*."""
    return make_device(text, make_plugin_manager(entry_points=False), program="test").device
