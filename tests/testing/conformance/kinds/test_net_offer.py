"""Rules of a card's offer and configuration: each is broken by a card that shows the wrong thing, and only by that."""

import pytest

from acrn_dm.testing.conformance.kinds.net import bits
from acrn_dm.testing.conformance.setup import FORMATS
from acrn_dm.virtio import features
from tests.testing.conformance.kinds.judging import judged
from tests.testing.conformance.kinds.paper import Paper

pytestmark = pytest.mark.stress  # two or three machines each
NET, SIZE = 1, 28
MQ, RSS = bits.MQ | bits.CTRL_VQ, bits.RSS | bits.CTRL_VQ
TSO = bits.CSUM | bits.HOST_TSO4 | bits.HOST_TSO6
GUEST = bits.GUEST_CSUM | bits.GUEST_TSO4 | bits.GUEST_TSO6


def u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


# row, what is offered, where in the configuration space, a good value there, a wrong one
SHOWN = [
    ("net.cfg.max_vq_pairs", MQ, 8, u16(1), u16(0)),
    ("net.cfg.max_vq_pairs", MQ, 8, u16(0x8000), u16(0x8001)),
    ("net.cfg.mtu.range", bits.MTU, 10, u16(68), u16(67)),
    ("net.cfg.mtu.min1280", bits.MTU, 10, u16(1280), u16(1279)),
    ("net.cfg.rss_max_key_size", RSS, 17, b"\x28", b"\x27"),
    ("net.cfg.rss_max_indir", RSS, 18, u16(128), u16(127)),
    ("net.cfg.speed", bits.SPEED_DUPLEX, 12, b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe"),
    ("net.cfg.duplex", bits.SPEED_DUPLEX, 16, b"\x01", b"\x02"),
    ("d.net.cfg.mac", bits.MAC, 0, b"\x02\0\0\0\0\1", bytes(6)),
    ("d.net.cfg.mac", bits.MAC, 0, b"\x02\0\0\0\0\1", b"\x03\0\0\0\0\1"),
]


@pytest.mark.parametrize(("row", "offer", "at", "good", "wrong"), SHOWN)
def test_wrong_value_in_the_configuration_fails_its_row(
    row: str, offer: int, at: int, good: bytes, wrong: bytes
) -> None:
    for value, broken in ((good, False), (wrong, True)):
        paper = Paper(kind=NET, features=offer, config={at: value}, size=SIZE)
        result = judged(paper.build, row)
        assert result.judged + len(result.failures) == len(FORMATS)  # once for each format of rings
        assert result.broken == broken


COMPANIONS = [
    ("net.feat.ipsec_out_net_header", bits.IPSEC, bits.OUT_NET_HEADER),
    ("net.feat.hash_report_needs_cvq", bits.HASH_REPORT, bits.CTRL_VQ),
    ("net.feat.rx_extra_needs_cvq", bits.CTRL_RX_EXTRA, bits.CTRL_VQ),
]


@pytest.mark.parametrize(("row", "alone", "with_it"), COMPANIONS)
def test_feature_without_its_companion_fails_its_row(row: str, alone: int, with_it: int) -> None:
    assert judged(Paper(kind=NET, features=alone, size=SIZE).build, row).broken
    assert not judged(Paper(kind=NET, features=alone | with_it, size=SIZE).build, row).broken


ALL = bits.GUEST_USO4 | bits.GUEST_USO6 | bits.HOST_USO | bits.GUEST_ECN | bits.HOST_ECN
DEPENDENCIES = {
    "d.net.dep.guest": (GUEST, bits.GUEST_CSUM),
    "d.net.dep.guest_ecn": (GUEST | bits.GUEST_ECN, bits.GUEST_TSO4 | bits.GUEST_TSO6),
    "d.net.dep.guest_tunnel": (GUEST | ALL | bits.GUEST_UDP_TUNNEL_GSO, bits.GUEST_USO6),
    "d.net.dep.host": (TSO, bits.CSUM),
    "d.net.dep.host_ecn": (TSO | bits.HOST_ECN, bits.HOST_TSO4 | bits.HOST_TSO6),
    "d.net.dep.host_tunnel": (TSO | ALL | bits.HOST_UDP_TUNNEL_GSO, bits.HOST_USO),
    "d.net.dep.cvq": (MQ, bits.CTRL_VQ),
    "d.net.dep.rsc": (TSO | bits.RSC_EXT, bits.HOST_TSO4 | bits.HOST_TSO6),
    "d.net.dep.hash_tunnel": (RSS | bits.HASH_TUNNEL, bits.RSS),
}


@pytest.mark.parametrize("row", DEPENDENCIES)
def test_features_that_need_one_another(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device offers all of them, then all but one group; the transport accepts whatever a driver asks for."""
    whole, group = DEPENDENCIES[row]
    whole |= bits.GUEST_CSUM if whole & bits.GUEST_USO4 else 0
    whole |= bits.CSUM if whole & bits.HOST_USO else 0
    whole = features.prune(NET, whole)
    assert not judged(Paper(kind=NET, features=whole, size=SIZE).build, row).failures
    monkeypatch.setattr(features, "_satisfied", lambda requires, accepted: True)
    assert judged(Paper(kind=NET, features=whole, size=SIZE).build, row).failures
    assert judged(Paper(kind=NET, features=whole & ~group, size=SIZE).build, row).failures
