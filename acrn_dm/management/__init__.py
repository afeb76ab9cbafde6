"""What the host's tools do to a running machine: the manager's socket (acrnctl, acrnd) and the command monitor."""

from acrn_dm.management.controls import Controls, PowerState, StopReason, power_state
from acrn_dm.management.service import Management
from acrn_dm.management.standstill import Standstill

__all__ = ["Controls", "Management", "PowerState", "Standstill", "StopReason", "power_state"]
