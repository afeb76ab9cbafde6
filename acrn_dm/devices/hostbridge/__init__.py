"""Host bridges: the function at slot 0 that says "this is a PCI Express machine"; without registers of their own."""

from collections.abc import Iterable

from acrn_dm.base.records import frozen
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import DeviceContext, DeviceType
from acrn_dm.pci.config_space import CAP_EXPRESS
from acrn_dm.pci.function import PciFunction

CLASS_HOST_BRIDGE = 0x060000
# PCI Express capability (PCI Express 3.0, 7.8), after id and next pointer: version 2, root port; device capabilities,
# control and status 0; link capabilities and status: x1 at 2.5 GT/s; everything else 0. Guests that distrust MSI on
# conventional PCI (FreeBSD, Windows) look for it here.
EXPRESS_BODY = bytes.fromhex("4200 00000000 0000 0000 11040000 0000 1100") + bytes(40)


@frozen(kw_only=True)
class HostBridgeConfig:
    """A host bridge has no options."""


class HostBridge(PciFunction):
    """A bridge of the given ids."""

    def __init__(self, context: DeviceContext, vendor: int, device: int) -> None:
        super().__init__(context, vendor=vendor, device=device, class_code=CLASS_HOST_BRIDGE)
        self.add_capability(CAP_EXPRESS, EXPRESS_BODY)


@hookimpl
def acrn_dm_device_types() -> Iterable[DeviceType]:
    """The two host bridges of the original."""
    return (
        DeviceType(
            name="hostbridge",
            summary="PCI host bridge",
            config=HostBridgeConfig,
            create=lambda config, context: HostBridge(context, 0x1275, 0x1275),
        ),
        DeviceType(
            name="amd_hostbridge",
            summary="PCI host bridge that guests take for AMD's",
            config=HostBridgeConfig,
            create=lambda config, context: HostBridge(context, 0x1022, 0x7432),
        ),
    )
