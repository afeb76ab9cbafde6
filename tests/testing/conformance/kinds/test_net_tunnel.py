"""Rules of tunnels, outer headers, IPsec and receive-side scaling: a small card keeps them, each is broken by one that
breaks it; and no row of network cards is without such a one.
"""

import pytest

from acrn_dm.testing.conformance import Outcome, conform, kinds
from tests.testing.conformance.kinds import test_net, test_net_coalescing, test_net_hashes, test_net_offer
from tests.testing.conformance.kinds.judging import judged, rows_of
from tests.testing.conformance.kinds.tunnel_card import TunnelNetwork

FAULTS = {
    "net.tx.tunnel.both_bits": "both tunnels",
    "net.tx.tunnel.offsets_unused": "looks at tunnel offsets",
    "net.tx.tunnel.needs_csum": "tunnels without checksum",
    "net.tx.tunnel.data_valid": "valid tunnels",
    "net.tx.tunnel.base_none": "bare tunnels",
    "net.tx.tunnel.csum_no_bits": "checksums without tunnel",
    "net.tx.security_ids": "looks at associations",
    "net.tx.outer_nh.ignore": "looks at outer headers",
    "net.rx.outer_nh.unused": "tells outer headers",
    "net.rx.sec.clear": "calls everything secured",
    "net.rx.sec_err.clear": "calls everything secured",
    "d.net.mq.last_cmd": "RSS for ever",
}


@pytest.mark.stress
def test_card_with_tunnels_keeps_every_rule() -> None:
    network = TunnelNetwork()
    report = conform(network.build, outside=network, rules=kinds.RULES)
    assert report.failed == [], report.text()
    passed = {verdict.row.id for verdict in report.having(Outcome.PASSED)}
    assert passed >= set(FAULTS), set(FAULTS) - passed


@pytest.mark.stress
@pytest.mark.parametrize(("row", "fault"), [*FAULTS.items(), ("d.net.mq.last_cmd", "never RSS")])
def test_card_with_tunnels_that_breaks_a_rule_fails_its_row(row: str, fault: str) -> None:
    network = TunnelNetwork(fault)
    assert judged(network.build, row, outside=network).failures


def test_every_row_has_a_fault() -> None:
    alone = {"net.ctrl.rx.nomulti.bcast", "net.mq.reset_drop", "net.mq.reset_reselect"}  # the last two: mutants/wrong
    shown = {row for row, *_ in test_net_offer.SHOWN} | {row for row, *_ in test_net_offer.COMPANIONS}
    offered = shown | set(test_net_offer.DEPENDENCIES)
    planted = {*test_net.FILTER_FAULTS, *test_net.PRODUCT_FAULTS, *FAULTS} | offered | alone
    planted |= {*test_net_coalescing.FAULTS, *test_net_hashes.FAULTS}
    assert set(rows_of("net")) == planted, set(rows_of("net")) ^ planted
