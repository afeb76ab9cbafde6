"""Management of a running machine by the host's tools: the manager's socket (acrnctl, acrnd), the command monitor."""

from acrn_dm.management.controls import Controls, PowerState, StopReason, power_state
from acrn_dm.management.service import Management
from acrn_dm.management.standstill import Standstill

__all__ = ["Controls", "Management", "PowerState", "Standstill", "StopReason", "power_state"]
