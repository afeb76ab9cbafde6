"""Boot firmware: what the machine does for it, and what it finds in the configuration device. What machines without one
have no use for is imported by those with one.
"""

from acrn_dm.boot.files import KeptFiles
from acrn_dm.contract.config import Firmware, MachineConfig
from acrn_dm.machine.firmware.no_firmware import FirmwareSupport

__all__ = ["FirmwareSupport", "make_support", "with_chips"]


def make_support(firmware: Firmware | None, files: KeptFiles) -> FirmwareSupport:
    """The work for *firmware*, read from *files*; nothing is open yet."""
    if firmware is None:
        return FirmwareSupport()
    from acrn_dm.machine.firmware.support import OvmfSupport  # noqa: PLC0415

    return OvmfSupport(firmware, files)


def with_chips(config: MachineConfig, files: KeptFiles) -> MachineConfig:
    """Add the chips by which the firmware knows its platform, the host bridge instead of the one that is given.

    Raises ConfigError where something else is in their place.
    """
    if config.firmware is None:
        return config
    from acrn_dm.machine.firmware import support  # noqa: PLC0415

    return support.with_chips(config, files)
