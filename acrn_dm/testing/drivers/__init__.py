"""The bench for drivers: one without a device, a machine or a guest, called through the guard that a device has."""

from collections.abc import Iterable

from acrn_dm.contract.drivers.choice import Wish
from acrn_dm.contract.plugins import BUILTINS, make_plugin_manager
from acrn_dm.contract.types import ChosenDriver, DriverContext

BUILT_IN = {name: module for name, module in BUILTINS.items() if name in ("devices.virtio_blk", "devices.virtio_net")}


def chosen(sort: str, text: str, plugins: Iterable[object], *, read_only: bool = False) -> ChosenDriver:
    """The driver that *text* means: ``NAME`` or ``NAME,OPTION...``. Raises ConfigError, PluginError."""
    name, _, options = text.partition(",")
    manager = make_plugin_manager(builtins=BUILT_IN, entry_points=False, extra=plugins)
    wish = Wish(sort=sort, name=name, options=options, where="driver")
    return wish.make(manager, DriverContext(device="bench", read_only=read_only))
