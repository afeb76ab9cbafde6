"""Boot firmware: what the machine does for it, and what it finds in the configuration device."""

from acrn_dm.machine.firmware.support import FirmwareSupport, with_chips

__all__ = ["FirmwareSupport", "with_chips"]
