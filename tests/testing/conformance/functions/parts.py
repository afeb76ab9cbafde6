"""The driver of the right function and of those derived from it: what makes it interrupt and move data."""

from collections.abc import Callable

from acrn_dm import PciFunction
from acrn_dm.contract.types import DeviceContext
from acrn_dm.testing import GuestFunction, SimMachine
from acrn_dm.testing.conformance import SLOT
from acrn_dm.testing.conformance.outside import Operation
from tests.testing.conformance.mutants import right_function as regs


class RightOperation(Operation):
    """The registers of ``RightFunction``."""

    def interrupt(self, function: GuestFunction) -> None:
        function.bar_write(0, regs.RAISE, 4, 1)

    def acknowledge(self, function: GuestFunction) -> None:
        function.bar_write(0, regs.PENDING, 4, 1)

    def move(self, function: GuestFunction, gpa: int, length: int) -> None:
        function.bar_write(0, regs.ADDRESS, 4, gpa & 0xFFFF_FFFF)
        function.bar_write(0, regs.LENGTH, 4, length)
        function.bar_write(0, regs.FILL, 4, 1)


def build(make: Callable[[DeviceContext], PciFunction]) -> Callable[[SimMachine], object]:
    """What puts the function into its slot."""
    return lambda machine: machine.add(make, slot=SLOT)
