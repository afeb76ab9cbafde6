"""Rules of frames that come with work left to do: checksums and segmentation (virtio 5.1.6.4, 5.1.6.5.6)."""

from collections.abc import Iterable

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.net import bits, packets
from acrn_dm.testing.conformance.kinds.net.card import Card, Received, card
from acrn_dm.testing.conformance.kinds.net.packets import (
    DATA_VALID,
    ECN,
    NEEDS_CSUM,
    NONE,
    TCPV4,
    TCPV6,
    UDP,
    UDP_L4,
    Packet,
    frame,
    header,
    segment,
)
from acrn_dm.testing.conformance.rule import NotApplicable, rule

NET = ("net",)
MSS = 1000
OFFLOADS_SET = (5, 0)
KINDS = {TCPV4: bits.GUEST_TSO4, TCPV6: bits.GUEST_TSO6, UDP: bits.GUEST_UFO, UDP_L4: bits.GUEST_USO4}


def _open(*, v6: bool = False, protocol: int = packets.TCP_PROTOCOL, size: int = 3 * MSS, flags: int = 0x10) -> Packet:
    return segment(packets.flow(v6=v6, protocol=protocol), bytes(size), open_checksum=True, flags=flags)


def _of(kind: int, *, flags: int = 0x10) -> Packet:
    protocol = packets.TCP_PROTOCOL if kind in (TCPV4, TCPV6) else packets.UDP_PROTOCOL
    return _open(v6=kind == TCPV6, protocol=protocol, flags=flags)


def _header(packet: Packet, kind: int, *, flags: int = NEEDS_CSUM, mss: int = MSS) -> bytes:
    return header(flags, kind, packet.length, mss, start=packet.start, offset=packet.offset)


def _arrive(c: Card, packet: Packet, head: bytes) -> list[Received]:
    """What the driver gets when *packet* and then an ordinary frame arrive, without the latter, which must come."""
    c.post_enough()
    got = c.arrive_unfinished(head, packet.data)
    got += c.arrive(frame(b"next"))
    assert got, "no frame arrives any more"
    assert got[-1].data == frame(b"next"), "no frame arrives any more"
    return got[:-1]


def _never_as(bench: Bench, kinds: Iterable[int], *, without: int) -> None:
    """Packets of *kinds* do not reach a driver *without* the feature as such, though one with all it can have."""
    c = card(bench, without=without)
    for kind in kinds:
        packet = _of(kind)
        for got in _arrive(c, packet, _header(packet, kind)):
            assert got.gso_type & ~ECN != kind, f"gso_type {got.gso_type:#x} was not negotiated"


@rule("net.rx.full_csum", kinds=NET, over=("transport",))
def packets_are_checksummed_without_guest_checksums(bench: Bench) -> None:
    c = card(bench, without=bits.GUEST_CSUM)
    packet = _open(size=100)
    for got in _arrive(c, packet, _header(packet, NONE, mss=0)):
        assert got.flags == 0, f"flags are {got.flags:#x}"
        assert packets.transport_sum_is_right(got.data), "a packet comes without its checksum"


@rule("net.rx.no_tcpv4", kinds=NET)
def no_tcpv4_segmentation_without_its_feature(bench: Bench) -> None:
    _never_as(bench, [TCPV4], without=bits.GUEST_TSO4)


@rule("net.rx.no_tcpv6", kinds=NET)
def no_tcpv6_segmentation_without_its_feature(bench: Bench) -> None:
    _never_as(bench, [TCPV6], without=bits.GUEST_TSO6)


@rule("net.rx.no_udp", kinds=NET)
def no_udp_fragmentation_without_its_feature(bench: Bench) -> None:
    _never_as(bench, [UDP], without=bits.GUEST_UFO)


@rule("net.rx.no_udp_l4", kinds=NET)
def no_udp_segmentation_without_its_feature(bench: Bench) -> None:
    _never_as(bench, [UDP_L4], without=bits.GUEST_USO4 | bits.GUEST_USO6)


@rule("net.rx.gso_none", kinds=NET, over=("transport",))
def nothing_is_segmented_for_a_driver_without_segmentation(bench: Bench) -> None:
    c = card(bench, without=bits.GUEST_GSO)
    c.post_enough()
    plain = c.arrive(packets.frame())
    assert all(got.gso_type == NONE for got in plain), f"gso_type of a frame is {plain[0].gso_type:#x}"
    for kind in KINDS:
        packet = _of(kind)
        for got in _arrive(c, packet, _header(packet, kind)):
            assert got.gso_type == NONE, f"gso_type is {got.gso_type:#x}"


@rule("net.rx.no_tunnel_bits", "net.rx.tunnel.forbid", "net.rx.tunnel.csum_forbid", kinds=NET)
def no_tunnels_without_their_feature(bench: Bench) -> None:
    c = card(bench, without=bits.GUEST_UDP_TUNNEL_GSO)
    packet = _of(TCPV4)
    for bit in (packets.TUNNEL_IPV4, packets.TUNNEL_IPV6):
        for got in _arrive(c, packet, _header(packet, TCPV4 | bit)):
            assert not got.gso_type & (packets.TUNNEL_IPV4 | packets.TUNNEL_IPV6), f"gso_type is {got.gso_type:#x}"


@rule("net.rx.ecn.avoid", kinds=NET)
def no_ecn_segmentation_without_its_feature(bench: Bench) -> None:
    c = card(bench, without=bits.GUEST_ECN)
    packet = _of(TCPV4, flags=0x10 | packets.CWR)
    for got in _arrive(c, packet, _header(packet, TCPV4 | ECN)):
        assert got.gso_type == NONE, f"a segment with ECN comes with gso_type {got.gso_type:#x}"


@rule("net.rx.ecn.mark", kinds=NET, needs=("GUEST_ECN", "GUEST_TSO4"))
def ecn_segmentation_is_marked(bench: Bench) -> None:
    c = card(bench, want=bits.GUEST_ECN | bits.GUEST_TSO4)
    packet = _of(TCPV4, flags=0x10 | packets.CWR)
    got = _arrive(c, packet, _header(packet, TCPV4 | ECN))
    whole = [r for r in got if r.data == packet.data]
    if not whole:
        raise NotApplicable("what has the ECN bit is segmented by the device")
    assert whole[0].gso_type == TCPV4 | ECN, f"gso_type is {whole[0].gso_type:#x}"


@rule("net.rx.gso.needs_csum", kinds=NET, over=("transport",))
def segmentation_comes_with_needs_csum(bench: Bench) -> None:
    c = _segmenting(bench)
    for flags in (NEEDS_CSUM, 0, DATA_VALID):
        for kind in (TCPV4, TCPV6):
            packet = _of(kind)
            for got in _arrive(c, packet, _header(packet, kind, flags=flags)):
                assert got.gso_type == NONE or got.flags & NEEDS_CSUM, "gso_type without NEEDS_CSUM"


@rule("net.rx.gso.size", kinds=NET, over=("transport",))
def segmentation_comes_with_a_size(bench: Bench) -> None:
    c = _segmenting(bench)
    for size in (MSS, 0):
        packet = _of(TCPV4)
        for got in _arrive(c, packet, _header(packet, TCPV4, mss=size)):
            assert got.gso_type == NONE or got.field(4) == MSS, f"gso_type with gso_size {got.field(4)}, not {MSS}"


@rule("net.rx.hdr_len", kinds=NET)
def header_length_covers_all_headers(bench: Bench) -> None:
    c = _segmenting(bench)
    for kind in (TCPV4, TCPV6):
        packet = _of(kind)
        for got in _arrive(c, packet, _header(packet, kind)):
            told = got.field(2)
            assert got.gso_type == NONE or told >= packet.length, f"hdr_len is {told}, the headers have {packet.length}"


@rule("d.net.offloads.initial", kinds=NET)
def offloads_begin_enabled(bench: Bench) -> None:
    c = _segmenting(bench)
    for kind in (TCPV4, TCPV6):
        if c.driver.features & KINDS[kind]:
            packet = _of(kind)
            got = _arrive(c, packet, _header(packet, kind))
            assert [r.data for r in got] == [packet.data], f"a packet of gso_type {kind} does not come in one piece"


@rule("d.net.offloads.mask", kinds=NET, needs=("CTRL_GUEST_OFFLOADS",))
def offloads_are_switched_by_their_mask(bench: Bench) -> None:
    c = _segmenting(bench, want=bits.CTRL_GUEST_OFFLOADS)
    packet = _of(TCPV4)
    negotiated = c.driver.features & bits.GUEST_OFFLOADS
    for offloads, expected in (
        (negotiated & ~(bits.GUEST_TSO4 | bits.GUEST_ECN), False),
        (negotiated, True),
        (0, False),
        (negotiated, True),
    ):
        c.must(*OFFLOADS_SET, offloads.to_bytes(8, "little"))
        got = _arrive(c, packet, _header(packet, TCPV4))
        there = any(r.gso_type == TCPV4 for r in got)
        assert there == expected, f"after offloads {offloads:#x} segmentation {'comes' if there else 'does not come'}"
        assert all(r.flags == 0 for r in got if not offloads), "flags with all offloads off"


@rule("net.rx.needs_csum.pseudo", kinds=NET, needs=("GUEST_CSUM",))
def open_checksum_holds_the_pseudo_headers_sum(bench: Bench) -> None:
    for got, packet in _open_checksums(bench):
        at = packet.start + packet.offset
        wanted = packet.data[at : at + 2]
        assert got.data[at : at + 2] == wanted, "the checksum field is not the pseudo header's sum"


@rule("net.rx.needs_csum.fields", kinds=NET, needs=("GUEST_CSUM",))
def open_checksum_can_be_completed(bench: Bench) -> None:
    for got, _ in _open_checksums(bench):
        whole = packets.completed(got.data, got.field(6), got.field(8))
        assert packets.transport_sum_is_right(whole), "csum_start and csum_offset do not complete the checksum"


@rule("net.rx.data_valid.validated", kinds=NET, needs=("GUEST_CSUM",))
def wrong_checksum_is_not_called_valid(bench: Bench) -> None:
    c = card(bench, want=bits.GUEST_CSUM)
    c.post_enough()
    data = packets.spoiled(segment(packets.flow(), bytes(100)))
    for got in c.arrive(data, frame(b"next"))[:-1]:
        assert not got.flags & DATA_VALID, "a wrong checksum is called valid"


def _segmenting(bench: Bench, *, want: int = 0) -> Card:
    """A driver that takes TCP segmentation. Raises NotApplicable."""
    c = card(bench, want=want)
    if not c.driver.features & (bits.GUEST_TSO4 | bits.GUEST_TSO6):
        raise NotApplicable("not offered: GUEST_TSO4, GUEST_TSO6")
    return c


def _open_checksums(bench: Bench) -> list[tuple[Received, Packet]]:
    """Packets that came with NEEDS_CSUM, and what was sent; those that the device completed itself must be right."""
    c = card(bench, want=bits.GUEST_CSUM)
    found = []
    for v6 in (False, True):
        for protocol in (packets.TCP_PROTOCOL, packets.UDP_PROTOCOL):
            packet = _open(v6=v6, protocol=protocol, size=100)
            got = _arrive(c, packet, _header(packet, NONE, mss=0))
            assert len(got) == 1, "a packet whose checksum is open does not arrive"
            if got[0].flags & NEEDS_CSUM:
                found.append((got[0], packet))
            else:
                assert packets.transport_sum_is_right(got[0].data), "a packet comes without its checksum"
    return found
