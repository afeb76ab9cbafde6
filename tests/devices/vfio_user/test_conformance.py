"""The conformance suite's rules of PCI functions, for right ones that are another process's."""

from pathlib import Path

import pytest

from acrn_dm import Bdf, DeviceContext
from acrn_dm.testing import GuestFunction
from acrn_dm.testing.conformance import SLOT, conform
from acrn_dm.testing.conformance.functions import RULES
from tests.export.vfio_user.vfio_rig import served
from tests.testing.conformance.functions.parts import RightOperation
from tests.testing.conformance.mutants.right_function import RightFunction, RightMsix

ONE_AT_A_TIME = "pcifn.leak"  # has two machines at once, and a server has one client


class RemoteOperation(RightOperation):
    """The same at a distance: a write has been seen when what is read after it has come."""

    def interrupt(self, function: GuestFunction) -> None:
        super().interrupt(function)
        function.bar_read(0, 0, 4)

    def acknowledge(self, function: GuestFunction) -> None:
        super().acknowledge(function)
        function.bar_read(0, 0, 4)

    def move(self, function: GuestFunction, gpa: int, length: int) -> None:
        super().move(function, gpa, length)
        function.bar_read(0, 0, 4)


@pytest.mark.stress
@pytest.mark.parametrize("make", [RightFunction, RightMsix])
def test_right_function_keeps_every_rule_behind_another_process(make: type[RightFunction], tmp_path: Path) -> None:
    function = make(DeviceContext(bdf=Bdf(slot=0), kind="right"))
    path = tmp_path / "s"
    rules = [rule for rule in RULES if ONE_AT_A_TIME not in rule.ids]
    with served(function, path):
        report = conform(
            lambda machine: machine.add("vfio-user", f"socket={path}", slot=SLOT),
            outside=RemoteOperation(),
            rules=rules,
        )
    assert report.failed == [], report.text()
