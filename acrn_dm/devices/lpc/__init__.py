"""The LPC (ISA) bridge: where guests find the PIRQ links. The ISA devices are the platform's, with or without it."""

from collections.abc import Iterable

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import DeviceContext, DeviceType
from acrn_dm.pci.function import PciFunction
from acrn_dm.pci.pirq import DISABLED, IRQ_MASK, PirqRouter

VENDOR_INTEL = 0x8086
DEVICE_PIIX3_ISA = 0x7000
CLASS_ISA_BRIDGE = 0x060100
LINK_REGISTERS = (0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6A, 0x6B)  # links A-D, E-H, one byte each


@frozen(kw_only=True)
class LpcConfig:
    """The bridge has no options; serial ports are given with ``-l``."""


class Lpc(PciFunction):
    """The bridge. The link registers are storage: interrupts go through the IOAPIC."""

    one_only = True

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context, vendor=VENDOR_INTEL, device=DEVICE_PIIX3_ISA, class_code=CLASS_ISA_BRIDGE)
        for register in LINK_REGISTERS:
            self.config.define(register, 1, DISABLED, writable=DISABLED | IRQ_MASK)

    def pirqs_routed(self, pirqs: PirqRouter) -> None:
        """Show where the links lead."""
        for register, link in zip(LINK_REGISTERS, pirqs.registers, strict=True):
            self.config.set_power_on(register, 1, link)


def create(config: LpcConfig, context: DeviceContext) -> Lpc:
    """Make the bridge. Raises ConfigError behind another bus: ACPI describes the legacy ports below bus 0."""
    if context.bdf.bus != 0:
        raise ConfigError("the LPC bridge must be on bus 0", option="-s", value=f"{context.bdf},lpc")
    return Lpc(context)


@hookimpl
def acrn_dm_device_types() -> Iterable[DeviceType]:
    """The LPC bridge."""
    return (DeviceType(name="lpc", summary="LPC (ISA) bridge", config=LpcConfig, create=create),)
