"""The checks of a machine against its host, made before anything is open."""

from acrn_dm.machine.check.whole import check_machine

__all__ = ["check_machine"]
