"""The two chips by which firmware made for QEMU knows its platform: Intel's 440FX host bridge, and the power management
function of the PIIX4 south bridge.

Such firmware knows no other host bridge than a few of QEMU's, and finds the timer that it waits with through the second
function, which it expects at 0:1.3. Both only say what is there: memory and PM registers are where they are anyway.
"""

from collections.abc import Iterable

from acrn_dm.base import address_map as layout
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import Bdf, DeviceContext, DeviceType
from acrn_dm.pci.function import PciFunction

VENDOR_INTEL = 0x8086
HOST_BRIDGE, CLASS_HOST_BRIDGE = 0x1237, 0x060000
POWER_MANAGEMENT, CLASS_BRIDGE_OTHER = 0x7113, 0x068000
PM_PLACE = Bdf(slot=1, func=3)

# PIIX4 (order number 290562), 7.2: base of the PM registers, and whether they answer.
PMBA, PMBA_IS_IO = 0x40, 1
PMREGMISC, PMIOSE = 0x80, 1


@frozen(kw_only=True)
class NoOptions:
    """There are none."""


class HostBridge(PciFunction):
    """8086:1237."""

    one_only = True

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context, vendor=VENDOR_INTEL, device=HOST_BRIDGE, class_code=CLASS_HOST_BRIDGE)


class PowerManagement(PciFunction):
    """8086:7113. Its registers say that the PM block is at 0x400, and on; they can't be moved."""

    one_only = True

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context, vendor=VENDOR_INTEL, device=POWER_MANAGEMENT, class_code=CLASS_BRIDGE_OTHER)
        self.config.define(PMBA, 4, layout.PM1A_EVENT | PMBA_IS_IO)
        self.config.define(PMREGMISC, 1, PMIOSE)


def create_power_management(config: NoOptions, context: DeviceContext) -> PowerManagement:
    """Make the function. Raises ConfigError where nobody looks for it."""
    if context.bdf != PM_PLACE:
        raise ConfigError(f"firmware looks for it at {PM_PLACE}", option="-s", value=f"{context.bdf},piix4-pm")
    return PowerManagement(context)


@hookimpl
def acrn_dm_device_types() -> Iterable[DeviceType]:
    """Host bridge and power management."""
    return (
        DeviceType(
            name="i440fx",
            summary="host bridge for firmware made for QEMU (Debian's ovmf)",
            config=NoOptions,
            create=lambda config, context: HostBridge(context),
        ),
        DeviceType(
            name="piix4-pm",
            summary="where such firmware finds its timer; at slot 1:3",
            config=NoOptions,
            create=create_power_management,
        ),
    )
