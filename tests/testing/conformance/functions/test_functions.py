"""Rules of PCI functions: built-in ones and a right one keep them, and each is broken by one that breaks it."""

import os
from collections.abc import Iterator

import pytest

from acrn_dm.contract.types import DeviceType
from acrn_dm.devices import hostbridge, i440fx, lpc
from acrn_dm.pci.bus import Ecam, PciBus
from acrn_dm.testing.conformance import SLOT, conform
from acrn_dm.testing.conformance.functions import RULES
from tests.testing.conformance.functions.parts import RightOperation, build
from tests.testing.conformance.functions.wrong import WRONG, Several, leaked
from tests.testing.conformance.kinds.judging import judged, rows_of
from tests.testing.conformance.mutants.right_function import RightFunction, RightMsix

BUILT_IN = [kind for module in (hostbridge, i440fx, lpc) for kind in module.acrn_dm_device_types()]


@pytest.fixture(autouse=True)
def nothing_leaked() -> Iterator[None]:
    yield
    while leaked:
        os.close(leaked.pop())


@pytest.mark.stress
@pytest.mark.parametrize("kind", [k for k in BUILT_IN if k.name != "piix4-pm"], ids=lambda kind: kind.name)
def test_built_in_function_keeps_every_rule(kind: DeviceType) -> None:
    report = conform(lambda machine: machine.add(kind, slot=SLOT), rules=RULES)
    assert report.failed == [], report.text()


@pytest.mark.stress
@pytest.mark.parametrize("make", [RightFunction, RightMsix])
def test_right_function_keeps_every_rule(make: type[RightFunction]) -> None:
    report = conform(build(make), outside=RightOperation(), rules=RULES)
    assert report.failed == [], report.text()


def test_right_function_with_several_messages_keeps_their_rule() -> None:
    class Right(Several):
        extra = 0

    result = judged(build(Right), "pcifn.msi.multiple", outside=RightOperation())
    assert (result.failures, result.judged) == ([], 1)


@pytest.mark.stress
@pytest.mark.parametrize("row", WRONG)
def test_wrong_function_fails_its_row(row: str) -> None:
    result = judged(build(WRONG[row]), row, outside=RightOperation())
    assert result.failures, f"{row}: {result.reasons}"


@pytest.mark.parametrize(
    ("row", "owner", "method", "value"),
    [("pcifn.config.ecam", Ecam, "read", 0x1234), ("pcifn.config.beyond", PciBus, "read", 0)],
)
def test_wrong_bus_fails_its_row(
    row: str, owner: type, method: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = getattr(owner, method)

    def wrong(self: object, *args: int) -> int:
        behind = owner is Ecam or args[1] >= 256
        return value if behind else was(self, *args)

    monkeypatch.setattr(owner, method, wrong)
    assert judged(build(RightFunction), row, outside=RightOperation()).failures


def test_every_row_of_functions_has_a_wrong_function() -> None:
    assert set(rows_of("pci")) == {*WRONG, "pcifn.config.ecam", "pcifn.config.beyond"}
