"""A disk on a driver in Python keeps the rules of any disk: what is above the driver is the same."""

import pytest

from acrn_dm.testing.conformance import SLOT, conform
from acrn_dm.testing.conformance.report import Outcome
from tests.devices.virtio_blk.drivers.driver_rig import Plugin, Ram


@pytest.mark.stress
def test_disk_on_a_driver_conforms() -> None:
    report = conform(lambda it: it.add("virtio-blk", "driver=ram", slot=SLOT), name="ram", plugins=[Plugin(Ram)])
    assert not report.failed, report.text()
    assert len(report.having(Outcome.PASSED)) > 50
