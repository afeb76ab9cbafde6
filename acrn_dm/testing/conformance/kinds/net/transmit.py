"""Rules of frames that the guest sends (virtio 5.1.6.1, 5.1.6.2.2)."""

import itertools

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.net import bits, packets
from acrn_dm.testing.conformance.kinds.net.card import MTU_AT, Card, card
from acrn_dm.testing.conformance.kinds.net.packets import NEEDS_CSUM, TCPV4, frame, header, segment
from acrn_dm.testing.conformance.rule import NotApplicable, rule

NET = ("net",)
BOTH = ("transport",)
UNKNOWN_FLAGS = 0x90  # of which 0x80 is nobody's, and 0x10 the IPsec one of who negotiated that
MSS = 1000


def _arrives_unchanged(c: Card, data: bytes, head: bytes = b"") -> None:
    c.seen()
    done = c.send(data, head)
    assert done.written == 0, f"claims to have written {done.written} bytes into a transmit buffer"
    assert c.seen() == [data], f"a frame with the header {head.hex()} does not reach the network as it is"


def _never_arrives(c: Card, head: bytes) -> None:
    """The frame is dropped, its buffer comes back, and the next one goes out."""
    c.seen()
    packet = segment(packets.flow(), bytes(3 * MSS), open_checksum=True)
    c.send(packet.data, head)
    assert c.seen() == [], f"a frame with the header {head.hex()} is accepted"
    _arrives_unchanged(c, frame(b"next"))


@rule("d.net.hdr.size", kinds=NET, over=("transport", "interrupts"))
def frame_begins_behind_the_header(bench: Bench) -> None:
    for without in (0, bits.MRG_RXBUF, bits.HASH_REPORT, bits.OUT_NET_HEADER | bits.IPSEC):
        c = card(bench, without=without)
        _arrives_unchanged(c, frame(b"sent"))
        c.post_enough()
        got = c.arrive(frame(b"arrived"))
        assert [r.data for r in got] == [frame(b"arrived")], f"the header is not of {c.header} bytes"


@rule("dm.net.framing", kinds=NET, over=BOTH)
def frame_goes_out_however_it_is_cut(bench: Bench) -> None:
    """2.7.4.1, and ANY_LAYOUT for legacy drivers: header and frame in one buffer, in two, in single bytes."""
    c = card(bench)
    data = bytes(c.header) + frame(b"cut")
    for cuts in ((), (c.header,), (1,), (c.header - 1,), (c.header + 1,), (1, 2, 3, c.header, c.header + 7)):
        c.seen()
        ends = [0, *cuts, len(data)]
        parts = [data[a:b] for a, b in itertools.pairwise(ends)]
        c.driver.queue(1).transfer(parts)
        assert c.seen() == [data[c.header :]], f"a frame cut at {cuts} does not go out as it is"


@rule("d.net.hdr.legacy10", kinds=NET, transport="legacy")
def legacy_header_has_ten_bytes(bench: Bench) -> None:
    c = card(bench, without=bits.MRG_RXBUF)
    assert c.header == 10
    _arrives_unchanged(c, frame(b"sent"))
    c.post_enough()
    got = c.arrive(frame(b"arrived"))
    assert [r.data for r in got] == [frame(b"arrived")]


@rule("net.tx.ignore_unknown_flags", kinds=NET, over=BOTH)
def unknown_flags_are_ignored(bench: Bench) -> None:
    c = card(bench, without=bits.IPSEC)
    for bit in (0x80, 0x10, UNKNOWN_FLAGS):
        _arrives_unchanged(c, frame(bytes([bit])), header(flags=bit))


@rule("net.tx.no_csum_fields", kinds=NET)
def checksum_fields_count_with_needs_csum_only(bench: Bench) -> None:
    c = card(bench)
    for start, offset in ((14, 2), (0, 0xFFFF), (0xFFFF, 0xFFFF)):
        _arrives_unchanged(c, frame(b"plain"), header(start=start, offset=offset))


@rule("net.tx.csum_no_rely", kinds=NET)
def wrong_checksum_is_sent_as_it_is(bench: Bench) -> None:
    c = card(bench)
    for protocol in (packets.TCP_PROTOCOL, packets.UDP_PROTOCOL):
        _arrives_unchanged(c, packets.spoiled(segment(packets.flow(protocol=protocol), b"data")))


@rule("net.tx.outer_nh.ignore", kinds=NET)
def outer_header_counts_where_negotiated_only(bench: Bench) -> None:
    c = card(bench, without=bits.OUT_NET_HEADER)
    if c.header < 26:
        raise NotApplicable("the packet header has no outer_nh_offset")
    _arrives_unchanged(c, frame(b"plain"), bytes(24) + b"\x11\x22")


@rule("net.tx.security_ids", kinds=NET, needs=("IPSEC",))
def security_association_counts_with_its_flag_only(bench: Bench) -> None:
    c = card(bench, want=bits.IPSEC)
    _arrives_unchanged(c, frame(b"plain"), bytes(26) + b"\x11\x22\x33\x44\x55\x66")


@rule("net.tx.hdr_len.no_rely", kinds=NET, needs=("CSUM", "HOST_TSO4"))
def header_length_is_a_hint(bench: Bench) -> None:
    c = card(bench, want=bits.CSUM | bits.HOST_TSO4)
    payload = bytes(range(256)) * 12
    packet = segment(packets.flow(), payload, open_checksum=True)
    for hdr_len in (packet.length, 0, 1, 0xFFFF):
        c.seen()
        head = header(NEEDS_CSUM, TCPV4, hdr_len, MSS, start=packet.start, offset=packet.offset)
        c.send(packet.data, head)
        bench.machine.settle()
        frames = c.network.seen()
        sent = b"".join(f.data[packet.length :] for f in frames)
        assert sent == payload, f"with hdr_len {hdr_len} {len(sent)} of {len(payload)} bytes are sent"
        told = [int.from_bytes(f.header[2:4], "little") for f in frames if f.header]
        assert all(n <= len(packet.data) for n in told), f"hdr_len {hdr_len} is passed on, longer than the frame"


@rule("net.cfg.mtu.tx_forward", kinds=NET, needs=("MTU",))
def frame_of_the_mtu_is_sent_whole(bench: Bench) -> None:
    c = card(bench, want=bits.MTU)
    mtu = int.from_bytes(c.driver.read_config(MTU_AT, 2), "little")
    _arrives_unchanged(c, frame(size=packets.ETHERNET + mtu))


@rule("net.tx.tunnel.both_bits", kinds=NET, needs=("HOST_UDP_TUNNEL_GSO",))
def tunnel_is_of_one_kind(bench: Bench) -> None:
    c = card(bench, want=bits.HOST_UDP_TUNNEL_GSO)
    both = packets.TUNNEL_IPV4 | packets.TUNNEL_IPV6
    _never_arrives(c, header(NEEDS_CSUM, TCPV4 | both, 54, MSS, start=34, offset=16))


@rule("net.tx.tunnel.offsets_unused", kinds=NET, needs=("HOST_UDP_TUNNEL_GSO",))
def tunnel_offsets_count_with_its_bits_only(bench: Bench) -> None:
    c = card(bench, want=bits.HOST_UDP_TUNNEL_GSO)
    _arrives_unchanged(c, frame(b"plain"), bytes(20) + b"\x11\x22\x33\x44")


@rule("net.tx.tunnel.needs_csum", kinds=NET, needs=("HOST_UDP_TUNNEL_GSO",))
def tunnel_needs_a_checksum(bench: Bench) -> None:
    c = card(bench, want=bits.HOST_UDP_TUNNEL_GSO)
    _never_arrives(c, header(0, TCPV4 | packets.TUNNEL_IPV4, 54, MSS))


@rule("net.tx.tunnel.data_valid", kinds=NET, needs=("HOST_UDP_TUNNEL_GSO",))
def tunnel_is_not_validated(bench: Bench) -> None:
    c = card(bench, want=bits.HOST_UDP_TUNNEL_GSO)
    flags = NEEDS_CSUM | packets.DATA_VALID
    _never_arrives(c, header(flags, TCPV4 | packets.TUNNEL_IPV4, 54, MSS, start=34, offset=16))


@rule("net.tx.tunnel.base_none", kinds=NET, needs=("HOST_UDP_TUNNEL_GSO",))
def tunnel_is_segmented(bench: Bench) -> None:
    c = card(bench, want=bits.HOST_UDP_TUNNEL_GSO)
    _never_arrives(c, header(NEEDS_CSUM, packets.TUNNEL_IPV4, 54, MSS, start=34, offset=16))


@rule("net.tx.tunnel.csum_no_bits", kinds=NET, needs=("HOST_UDP_TUNNEL_GSO_CSUM",))
def tunnel_checksum_goes_with_a_tunnel(bench: Bench) -> None:
    c = card(bench, want=bits.HOST_UDP_TUNNEL_GSO_CSUM)
    _never_arrives(c, header(NEEDS_CSUM | packets.UDP_TUNNEL_CSUM, TCPV4, 54, MSS, start=34, offset=16))
