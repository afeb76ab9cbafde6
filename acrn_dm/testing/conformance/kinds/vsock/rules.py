"""Rules of socket devices (virtio 5.10)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.vsock import flow as vs
from acrn_dm.testing.conformance.kinds.vsock.flow import (
    CLOSED_PORT,
    CREDIT_REQUEST,
    CREDIT_UPDATE,
    HOST_CID,
    HOST_PORT,
    NO_RECEIVE,
    NO_SEND,
    REQUEST,
    RESPONSE,
    RST,
    RW,
    SEQ_EOM,
    SEQPACKET,
    SHUTDOWN,
    STREAM,
    Connection,
    Packet,
    Sockets,
    sockets,
)
from acrn_dm.testing.conformance.rule import rule

VSOCK = ("vsock",)
RESERVED_CIDS = (0, 1, 2, 0xFFFF_FFFF, 2**64 - 1)


def _connected(bench: Bench, *, room: int = vs.ROOM, want: int = 0, without: int = 0) -> tuple[Sockets, Connection]:
    s = sockets(bench, want=want, without=without)
    s.host.listen(HOST_PORT)
    connection = s.connection(room=room)
    connection.open()
    return s, connection


def _payload(s: Sockets, c: Connection, count: int) -> bytes:
    """RW bytes that come, until so many or no more do."""
    data = b""
    while len(data) < count:
        packets = s.received()
        data += b"".join(p.data for p in packets if p.op == RW and c.owns(p))
        if not packets:
            break
    return data


@rule("vsock.feat.no_implied", kinds=VSOCK)
def streams_can_be_left_out(bench: Bench) -> None:
    assert bench.offered & vs.NO_IMPLIED_STREAM, "NO_IMPLIED_STREAM is not offered"


@rule("vsock.feat.none_is_stream", kinds=VSOCK)
def streams_are_implied(bench: Bench) -> None:
    s, c = _connected(bench, without=vs.STREAM_F | vs.SEQPACKET_F | vs.NO_IMPLIED_STREAM)
    c.send(RW, b"stream")
    assert s.host.received(HOST_PORT) == b"stream"


@rule("d.vsock.cfg", kinds=VSOCK)
def address_has_32_bits(bench: Bench) -> None:
    assert bench.config_size >= 8, f"the configuration has {bench.config_size} bytes"
    cid = int.from_bytes(bench.driver().read_config(0, 8), "little")
    assert cid >> 32 == 0, f"guest_cid is {cid:#x}"


@rule("vsock.cid.reserved", kinds=VSOCK)
def address_is_not_reserved(bench: Bench) -> None:
    cid = int.from_bytes(bench.driver().read_config(0, 8), "little")
    assert cid not in RESERVED_CIDS, f"guest_cid is {cid:#x}"


@rule("d.vsock.connect", kinds=VSOCK, over=("interrupts",))
def listening_port_accepts(bench: Bench) -> None:
    s = sockets(bench)
    s.host.listen(HOST_PORT)
    for local in (vs.GUEST_PORT, vs.GUEST_PORT + 1):
        c = s.connection()
        c.local = local
        assert c.open().type == STREAM


@rule("d.vsock.connect_rst", kinds=VSOCK)
def closed_port_refuses(bench: Bench) -> None:
    s = sockets(bench)
    c = s.connection(CLOSED_PORT)
    c.send(REQUEST)
    c.answer(RST)


@rule("d.vsock.hdr", kinds=VSOCK)
def bytes_pass_both_ways(bench: Bench) -> None:
    s, c = _connected(bench)
    for data in (b"to the host", bytes(range(256)) * 8):
        c.send(RW, data)
        assert s.host.received(HOST_PORT) == data, "the host gets something else than was sent"
    s.host.send(HOST_PORT, b"to the guest")
    packet = c.answer(RW)
    assert (packet.data, packet.type, packet.src_cid) == (b"to the guest", STREAM, HOST_CID)


@rule("d.vsock.cid_hi0", kinds=VSOCK)
def addresses_in_packets_have_32_bits(bench: Bench) -> None:
    for packet in _all_kinds(bench):
        assert packet.src_cid >> 32 == packet.dst_cid >> 32 == 0, f"addresses {packet.src_cid:#x}, {packet.dst_cid:#x}"
        assert packet.src_cid == HOST_CID


@rule("vsock.credit.fields", kinds=VSOCK)
def every_packet_tells_the_credit(bench: Bench) -> None:
    s, c = _connected(bench)
    c.send(CREDIT_REQUEST)
    first = c.answer(CREDIT_UPDATE)
    assert first.buf_alloc > 0, "buf_alloc is 0"
    c.send(RW, bytes(100))
    assert s.host.received(HOST_PORT) == bytes(100)
    c.send(CREDIT_REQUEST)
    later = c.answer(CREDIT_UPDATE)
    assert (later.fwd_cnt - first.fwd_cnt) & 0xFFFF_FFFF == 100, f"fwd_cnt goes from {first.fwd_cnt} to {later.fwd_cnt}"
    s.host.send(HOST_PORT, b"data")
    data = c.answer(RW)
    assert (data.buf_alloc, data.fwd_cnt) == (later.buf_alloc, later.fwd_cnt), (
        "RW tells another credit than CREDIT_UPDATE"
    )


@rule("vsock.credit.respect", kinds=VSOCK)
def no_more_is_sent_than_there_is_room(bench: Bench) -> None:
    room = 300
    s, c = _connected(bench, room=room)
    sent = bytes(range(250)) * 4
    s.host.send(HOST_PORT, sent)
    got = b""
    while len(got) < len(sent):
        part = _payload(s, c, room)
        assert part, f"nothing comes any more after {len(got)} of {len(sent)} bytes"
        assert len(part) <= room, f"{len(part)} bytes are sent where there is room for {room}"
        got += part
        c.forwarded += len(part)
        c.send(CREDIT_UPDATE)
    assert got == sent, "the guest gets something else than was sent"


@rule("d.vsock.credit_math", kinds=VSOCK)
def credit_counts_payload_and_wraps(bench: Bench) -> None:
    room = 64
    s, c = _connected(bench, room=room)
    sent = bytes(range(64))
    for _ in range(3):  # exactly the room, each time: headers do not count
        s.host.send(HOST_PORT, sent)
        assert _payload(s, c, room) == sent, "what there is room for does not come"
        c.forwarded = (c.forwarded + room) & 0xFFFF_FFFF
        c.send(CREDIT_UPDATE)
    c.room = 0xFFFF_FFFF  # and what the driver still has in flight is modulo 2^32
    c.send(CREDIT_UPDATE)
    s.host.send(HOST_PORT, sent)
    assert _payload(s, c, room) == sent, "nothing comes where there is room for 2^32 - 1 bytes"


@rule("d.vsock.credit_request", kinds=VSOCK)
def credit_is_told_on_request(bench: Bench) -> None:
    _, c = _connected(bench)
    for _ in range(2):
        c.send(CREDIT_REQUEST)
        c.answer(CREDIT_UPDATE)


@rule("d.vsock.len", kinds=VSOCK)
def bytes_behind_the_payload_do_not_count(bench: Bench) -> None:
    s, c = _connected(bench)
    c.send(RW, b"payload", behind=b" and what is behind it")
    assert s.host.received(HOST_PORT) == b"payload", "the host gets more than the packet's len"


@rule("d.vsock.shutdown", kinds=VSOCK)
def half_closed_connection_goes_on(bench: Bench) -> None:
    s, c = _connected(bench)
    c.send(SHUTDOWN, flags=NO_SEND)
    s.host.send(HOST_PORT, b"still")
    assert c.answer(RW).data == b"still", "a guest that sends no more does not get anything"
    c.send(SHUTDOWN)  # hints stay: one without the bit takes nothing back, and is no reset
    s.host.send(HOST_PORT, b"there")
    assert c.answer(RW).data == b"there"
    c.send(SHUTDOWN, flags=NO_RECEIVE)
    c.answer(RST)


@rule("d.vsock.shutdown_rst", kinds=VSOCK)
def closed_connection_is_reset(bench: Bench) -> None:
    s, c = _connected(bench)
    c.send(SHUTDOWN, flags=NO_SEND | NO_RECEIVE)
    c.answer(RST)
    c.open()
    c.send(RW, b"again")
    assert s.host.received(HOST_PORT) == b"again", "the port can't be used again"


@rule("vsock.unknown_type.rst", kinds=VSOCK)
def unknown_type_is_reset(bench: Bench) -> None:
    s = sockets(bench)
    for kind in (0, 3, 99, 0xFFFF):
        c = s.connection(kind=kind)
        c.send(REQUEST)
        c.answer(RST)
    s.send(s.connection(kind=99).packet(RST))
    assert s.received(0) == [], "RST is answered"


@rule("vsock.flow.tx_while_rx_full", kinds=VSOCK)
def packets_are_taken_while_there_is_no_buffer_for_answers(bench: Bench) -> None:
    s = sockets(bench, buffers=0)
    s.host.listen(HOST_PORT)
    count = 24
    for number in range(count):
        c = s.connection()
        c.local = vs.GUEST_PORT + number
        c.send(REQUEST)  # which has to come back, though its answer can't be delivered
    s.post(count)
    answers = s.received(count)
    assert len(answers) == count, f"{len(answers)} of {count} requests are answered when buffers come"
    assert {p.op for p in answers} <= {RESPONSE, RST}


@rule("d.vsock.seq_eom", kinds=VSOCK, needs=("SEQPACKET",))
def messages_end_with_a_mark(bench: Bench) -> None:
    s = sockets(bench, want=vs.SEQPACKET_F)
    s.host.listen_seqpacket(HOST_PORT)
    c = s.connection(kind=SEQPACKET)
    c.open()
    for message in (b"short", bytes(range(256)) * 40):
        s.host.send(HOST_PORT, message)
        got, marks = b"", []
        while len(got) < len(message):
            packet = c.answer(RW)
            got += packet.data
            marks.append(bool(packet.flags & SEQ_EOM))
        assert got == message
        assert marks == [False] * (len(marks) - 1) + [True], f"SEQ_EOM is set in {marks}"


def _all_kinds(bench: Bench) -> list[Packet]:
    """One packet of each op that a device sends by itself."""
    s, c = _connected(bench)
    found = []
    c.send(CREDIT_REQUEST)
    found.append(c.answer(CREDIT_UPDATE))
    s.host.send(HOST_PORT, b"data")
    found.append(c.answer(RW))
    c.send(SHUTDOWN, flags=NO_SEND | NO_RECEIVE)
    found.append(c.answer(RST))
    other = s.connection(CLOSED_PORT)
    other.send(REQUEST)
    found.append(other.answer(RST))
    return found
