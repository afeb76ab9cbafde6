"""What a machine misses on its host, found before anything is open."""

from acrn_dm.machine.check.whole import check_machine

__all__ = ["check_machine"]
