"""Rules of socket devices: a played one keeps them all, and each is broken by one that breaks it."""

import pytest

from acrn_dm.testing.conformance import Outcome, conform, kinds
from tests.testing.conformance.kinds.judging import judged, rows_of
from tests.testing.conformance.kinds.socket_host import PlayedHost
from tests.testing.conformance.kinds.socket_kernel import DEVICE, PackagedHost

FAULTS = {
    "vsock.feat.no_implied": "implies streams",
    "vsock.feat.none_is_stream": "needs a bit",
    "d.vsock.cfg": "wide cid",
    "vsock.cid.reserved": "reserved cid",
    "d.vsock.connect": "refuses",
    "d.vsock.connect_rst": "silent refusal",
    "d.vsock.hdr": "reverses",
    "d.vsock.cid_hi0": "wide addresses",
    "vsock.credit.fields": "stale credit",
    "vsock.credit.respect": "ignores credit",
    "d.vsock.credit_math": "counts headers",
    "d.vsock.credit_request": "no credit update",
    "d.vsock.len": "counts the buffer",
    "d.vsock.shutdown": "resets at once",
    "d.vsock.shutdown_rst": "never resets",
    "vsock.unknown_type.rst": "ignores types",
    "vsock.flow.tx_while_rx_full": "waits for buffers",
    "d.vsock.seq_eom": "no marks",
}


@pytest.mark.stress
def test_device_keeps_every_rule() -> None:
    host = PlayedHost()
    report = conform(host.build, outside=host, rules=kinds.RULES)
    assert report.failed == [], report.text()


@pytest.mark.stress
@pytest.mark.parametrize(("row", "fault"), [*FAULTS.items(), ("vsock.credit.fields", "no room")])
def test_device_that_breaks_a_rule_fails_its_row(row: str, fault: str) -> None:
    host = PlayedHost(fault)
    assert judged(host.build, row, outside=host).failures


def test_every_row_has_a_fault() -> None:
    assert set(rows_of("vsock")) == set(FAULTS)


@pytest.mark.stress
def test_package_keeps_every_rule_of_the_suite() -> None:
    """Its data are the kernel's, which is played here; registers, queues, kicks and interrupts are the product's."""
    host = PackagedHost()
    report = conform(host.build, plugins=[DEVICE, host], outside=host)
    assert report.failed == [], report.text()
    passed = {verdict.row.id for verdict in report.having(Outcome.PASSED)}
    assert passed >= set(rows_of("vsock")), set(rows_of("vsock")) - passed
