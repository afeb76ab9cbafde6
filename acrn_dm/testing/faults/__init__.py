"""Faults by script: calls of the host that fail, are late, short or overtaken, and interrupts that get lost."""

from acrn_dm.testing.faults.faults import Faults
from acrn_dm.testing.faults.rule import Fault

__all__ = ["Fault", "Faults"]
