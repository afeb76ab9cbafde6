"""Rules of frames for the guest, and of the buffers they come in (virtio 5.1.6.3, 5.1.6.4)."""

from collections.abc import Sequence

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.net import bits, packets
from acrn_dm.testing.conformance.kinds.net.card import LARGE, MTU_AT, NUM_BUFFERS_AT, Received, card
from acrn_dm.testing.conformance.kinds.net.packets import NONE, frame
from acrn_dm.testing.conformance.rule import NotApplicable, rule

NET = ("net",)
BOTH = ("transport",)
SMALL, BIG = 256, 1000


def _one(got: Sequence[Received], data: bytes) -> Received:
    assert len(got) == 1, f"{len(got)} packets arrive where there was one"
    assert got[0].data == data, "the packet is not the frame that came"
    return got[0]


@rule("net.rx.num_buffers", kinds=NET, over=("transport", "interrupts"), needs=("MRG_RXBUF",))
def num_buffers_is_how_many_were_used(bench: Bench) -> None:
    c = card(bench, want=bits.MRG_RXBUF)
    for size in (60, BIG):
        c.post(*[SMALL] * 8)
        _one(c.arrive(frame(size=size)), frame(size=size))
        c = card(bench, want=bits.MRG_RXBUF)


@rule("net.rx.single_buffer", kinds=NET, over=BOTH)
def packet_has_one_buffer_without_mergeable_ones(bench: Bench) -> None:
    c = card(bench, without=bits.MRG_RXBUF)
    room = c.header + BIG if not c.driver.features & bits.GUEST_GSO else LARGE
    c.post(room, room)
    got = _one(c.arrive(frame(b"a", size=BIG)), frame(b"a", size=BIG))
    assert len(got.buffers) == 1
    _one(c.arrive(frame(b"b")), frame(b"b"))


@rule("net.rx.num_buffers_1", kinds=NET)
def num_buffers_is_1_without_mergeable_ones(bench: Bench) -> None:
    c = card(bench, without=bits.MRG_RXBUF)
    c.post_enough()
    for data in (frame(), frame(size=BIG)):
        got = _one(c.arrive(data), data)
        assert got.field(NUM_BUFFERS_AT) == 1, f"num_buffers is {got.field(NUM_BUFFERS_AT)}"


@rule("net.rx.mrg.num_buffers", kinds=NET, over=BOTH, needs=("MRG_RXBUF",))
def num_buffers_spans_the_packet_and_its_header(bench: Bench) -> None:
    for size in (SMALL, SMALL - 12, SMALL - 11, 4 * SMALL - 12, 4 * SMALL - 11):
        c = card(bench, want=bits.MRG_RXBUF)
        c.post(*[SMALL] * 8)
        got = _one(c.arrive(frame(size=size)), frame(size=size))
        needed = -(-(c.header + size) // SMALL)
        assert got.field(NUM_BUFFERS_AT) == needed, f"num_buffers is {got.field(NUM_BUFFERS_AT)}, not {needed}"


@rule("net.rx.mrg.fill", kinds=NET, needs=("MRG_RXBUF",))
def merged_buffers_are_filled_but_the_last(bench: Bench) -> None:
    c = card(bench, want=bits.MRG_RXBUF)
    c.post(*[SMALL] * 8)
    got = _one(c.arrive(frame(size=BIG)), frame(size=BIG))
    used = [b.written for b in got.buffers]
    assert set(used[:-1]) == {SMALL}, f"buffers of {SMALL} bytes are used to {used}"


@rule("net.rx.mrg.together", kinds=NET, needs=("MRG_RXBUF",))
def merged_buffers_are_used_together(bench: Bench) -> None:
    c = card(bench, want=bits.MRG_RXBUF)
    c.post(*[SMALL] * 2)  # too few for the packet
    got = c.arrive(frame(size=BIG))
    assert got == [], "buffers of a packet are used before all of them are there"
    c.post(*[SMALL] * 6)
    for packet in c.received():
        assert packet.data == frame(size=BIG), "buffers of a packet are used before all of them are there"
    c.post(*[SMALL] * 8)
    assert c.arrive(frame(b"next"))[-1].data == frame(b"next")


@rule("d.net.rx.mrg_hdr_first", kinds=NET, needs=("MRG_RXBUF",))
def only_the_first_merged_buffer_has_a_header(bench: Bench) -> None:
    c = card(bench, want=bits.MRG_RXBUF)
    c.post(*[SMALL] * 8)
    data = bytes(range(1, 251)) * 4
    got = _one(
        c.arrive(packets.BROADCAST + packets.HOST + b"\x88\xb5" + data),
        packets.BROADCAST + packets.HOST + b"\x88\xb5" + data,
    )
    assert len(got.buffers) > 1


@rule("net.rx.flags_zero", kinds=NET, over=BOTH)
def flags_are_zero_without_guest_checksums(bench: Bench) -> None:
    c = card(bench, without=bits.GUEST_CSUM)
    c.post_enough()
    data = packets.segment(packets.flow(), b"data").data
    for sent in (frame(), data):
        got = _one(c.arrive(sent), sent)
        assert got.flags == 0, f"flags are {got.flags:#x}"
    for flags in (packets.DATA_VALID, packets.NEEDS_CSUM | packets.DATA_VALID):
        head = packets.header(flags, start=34, offset=16) if flags & packets.NEEDS_CSUM else packets.header(flags)
        for got in c.arrive_unfinished(head, data):
            assert got.flags == 0, f"flags of a frame that the network vouches for are {got.flags:#x}"


@rule("net.rx.outer_nh.unused", kinds=NET)
def outer_header_is_not_told_without_its_feature(bench: Bench) -> None:
    c = card(bench, without=bits.OUT_NET_HEADER)
    if c.header < 26:
        raise NotApplicable("the packet header has no outer_nh_offset")
    c.post_enough()
    got = _one(c.arrive(frame()), frame())
    assert got.field(24) == 0, f"outer_nh_offset is {got.field(24)}"


@rule("net.rx.rsc.absent", kinds=NET)
def coalescing_is_not_told_without_its_feature(bench: Bench) -> None:
    c = card(bench, without=bits.RSC_EXT)
    c.post_enough()
    data = packets.segment(packets.flow(), b"data").data
    got = _one(c.arrive(data), data)
    assert not got.flags & packets.RSC_INFO, f"flags are {got.flags:#x}"


@rule("net.rx.no_tunnel_csum", kinds=NET)
def tunnel_checksum_is_not_told_without_its_feature(bench: Bench) -> None:
    c = card(bench, without=bits.GUEST_UDP_TUNNEL_GSO_CSUM)
    c.post_enough()
    data = packets.segment(packets.flow(protocol=packets.UDP_PROTOCOL), bytes(100)).data
    got = _one(c.arrive(data), data)
    assert not got.flags & packets.UDP_TUNNEL_CSUM, f"flags are {got.flags:#x}"


@rule("net.rx.sec.clear", "net.rx.sec_err.clear", kinds=NET, needs=("IPSEC",))
def plain_packet_has_no_security_flags(bench: Bench) -> None:
    c = card(bench, want=bits.IPSEC)
    c.post_enough()
    got = _one(c.arrive(frame()), frame())
    assert not got.flags & 0x70, f"flags are {got.flags:#x}"


@rule("net.cfg.mtu.rx_limit", kinds=NET, needs=("MTU",))
def packet_longer_than_the_mtu_is_not_passed(bench: Bench) -> None:
    c = card(bench, want=bits.MTU)
    mtu = int.from_bytes(c.driver.read_config(MTU_AT, 2), "little")
    c.post(*[LARGE] * 4)
    fits, too_long = frame(b"f", size=packets.ETHERNET + mtu), frame(b"t", size=packets.ETHERNET + mtu + 1)
    got = c.arrive(too_long, fits)
    assert all(r.data != too_long or r.gso_type & ~packets.ECN != NONE for r in got), (
        f"more than the mtu, {mtu}, is passed"
    )
    assert got[-1].data == fits
