"""Packet headers against hostile drivers and stale taps. Numbers in names are rows of the collected device-model
bugs.
"""

import itertools

import pytest

from acrn_dm.devices.virtio_net.request import (
    CSUM,
    GUEST_CSUM,
    GUEST_ECN,
    GUEST_TSO4,
    GUEST_TSO6,
    HOST_ECN,
    HOST_TSO4,
    HOST_TSO6,
    MRG_RXBUF,
    header_bytes,
    receive_flags,
    transmit_header,
)
from acrn_dm.virtio.features import VERSION_1
from tests.devices.virtio_net.net_rig import DATA_VALID, ECN, NEEDS_CSUM, TCPV4, TCPV6, vnet

RECEIVES_ALL = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN
ALL = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN
EDGES = [0, 1, 13, 58, 59, 60, 61, 0x7FFF, 0xFFFE, 0xFFFF]


@pytest.mark.parametrize(
    ("features", "size"),
    [(0, 10), (MRG_RXBUF, 12), (VERSION_1, 12), (VERSION_1 | MRG_RXBUF, 12), (CSUM | HOST_TSO4 | 1 << 16, 10)],
)
def test_row_75_header_length_follows_the_features(features: int, size: int) -> None:
    assert header_bytes(features) == size


@pytest.mark.parametrize(("start", "offset"), list(itertools.product(EDGES, EDGES)))
def test_row_77_checksum_outside_the_frame_is_dropped(start: int, offset: int) -> None:
    header = transmit_header(vnet(NEEDS_CSUM, start=start, offset=offset), 60, ALL)
    inside = start + offset + 2 <= 60
    assert header == (vnet(NEEDS_CSUM, start=start, offset=offset) if inside else None)


@pytest.mark.parametrize(("hdr_len", "gso_size"), list(itertools.product(EDGES, EDGES)))
def test_row_77_and_net_tx_hdr_len_no_rely_long_header_is_cut_and_a_zero_mss_dropped(
    hdr_len: int, gso_size: int
) -> None:
    header = transmit_header(vnet(NEEDS_CSUM, TCPV4, hdr_len, gso_size, 34, 16), 60, ALL)
    assert header == (vnet(NEEDS_CSUM, TCPV4, min(hdr_len, 60), gso_size, 34, 16) if gso_size else None)


def test_net_tx_no_csum_fields_without_needs_csum_garbage_is_not_used() -> None:
    assert transmit_header(vnet(0, 0, 9999, 9999, 9999, 9999) + b"\xff\xff", 60, ALL) == bytes(12)


@pytest.mark.parametrize("flag", [2, 4, 8, 16, 32, 64, 128])
def test_net_tx_ignore_unknown_flags(flag: int) -> None:
    assert transmit_header(vnet(flag), 60, ALL) == bytes(10)
    assert transmit_header(vnet(flag | NEEDS_CSUM), 60, ALL) == vnet(NEEDS_CSUM)


@pytest.mark.parametrize("gso", [2, 3, 5, 0x20 | TCPV4, 0x40 | TCPV4, ECN, 0x7F, 0xFF])
def test_segmentation_nobody_offered_is_dropped(gso: int) -> None:
    assert transmit_header(vnet(NEEDS_CSUM, gso, 54, 1000, 34, 16), 3000, ALL) is None


@pytest.mark.parametrize(
    ("features", "gso"), [(CSUM, TCPV4), (CSUM | HOST_TSO4, TCPV6), (CSUM | HOST_TSO4, TCPV4 | ECN), (HOST_TSO4, TCPV4)]
)
def test_segmentation_that_was_not_negotiated_is_dropped(features: int, gso: int) -> None:
    assert transmit_header(vnet(NEEDS_CSUM, gso, 54, 1000, 34, 16), 3000, features) is None


def test_segmentation_without_needs_csum_is_dropped() -> None:
    assert transmit_header(vnet(0, TCPV4, 54, 1000, 34, 16), 3000, ALL) is None


def test_plain_checksum_request_carries_no_segmentation_fields() -> None:
    assert transmit_header(vnet(NEEDS_CSUM, 0, 54, 1000, 34, 16), 60, ALL) == vnet(NEEDS_CSUM, start=34, offset=16)


def test_net_rx_flags_zero_without_guest_csum() -> None:
    assert receive_flags(vnet(DATA_VALID), 0) == 0


def test_net_rx_full_csum_frame_without_checksum_is_not_passed_on() -> None:
    assert receive_flags(vnet(NEEDS_CSUM), 0) is None


@pytest.mark.parametrize("flags", [0, NEEDS_CSUM, DATA_VALID, 0xFF])
def test_net_rx_rsc_absent_and_no_tunnel_csum_flags_are_cleared(flags: int) -> None:
    assert receive_flags(vnet(flags), GUEST_CSUM) == flags & 3


@pytest.mark.parametrize("gso", [TCPV4, TCPV6, 3, 5, TCPV4 | 0x20, TCPV4 | 0x40, TCPV4 | ECN])
def test_net_rx_gso_none_and_no_type_that_was_not_negotiated(gso: int) -> None:
    assert receive_flags(vnet(NEEDS_CSUM, gso, gso_size=1448), GUEST_CSUM) is None


def test_net_rx_ecn_mark_needs_its_feature() -> None:
    header = vnet(NEEDS_CSUM, TCPV4 | ECN, gso_size=1448)
    assert receive_flags(header, GUEST_CSUM | GUEST_TSO4) is None
    assert receive_flags(header, GUEST_CSUM | GUEST_TSO4 | GUEST_ECN) == NEEDS_CSUM


@pytest.mark.parametrize("gso", [TCPV4, TCPV6, TCPV4 | ECN])
@pytest.mark.parametrize("flags", [0, DATA_VALID])
def test_net_rx_gso_needs_csum(gso: int, flags: int) -> None:
    """net.rx.gso.needs_csum: segmentation without NEEDS_CSUM does not reach the driver."""
    assert receive_flags(vnet(flags, gso, 54, 1448, 34, 16), RECEIVES_ALL) is None
    assert receive_flags(vnet(NEEDS_CSUM, gso, 54, 1448, 34, 16), RECEIVES_ALL) == NEEDS_CSUM


@pytest.mark.parametrize("gso", [TCPV4, TCPV6, TCPV4 | ECN])
def test_net_rx_gso_size(gso: int) -> None:
    """net.rx.gso.size: segmentation without a segment size does not reach the driver."""
    assert receive_flags(vnet(NEEDS_CSUM, gso, 54, 0, 34, 16), RECEIVES_ALL) is None
    assert receive_flags(vnet(NEEDS_CSUM, gso, 54, 1, 34, 16), RECEIVES_ALL) == NEEDS_CSUM
