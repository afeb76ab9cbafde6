"""What the host's tools do to a running machine: the manager's socket (acrnctl, acrnd) and the command monitor."""

from acrn_dm.management.controls import Controls, PowerState
from acrn_dm.management.service import Management
from acrn_dm.management.standstill import Standstill

__all__ = ["Controls", "Management", "PowerState", "Standstill"]
