"""acrn_dm.devices.virtio_net.steering._hash: what of a frame is hashed, and the Toeplitz hash of that."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.devices.virtio_net.steering._hash import FrameHash

# Microsoft, "Verifying the RSS Hash Calculation": key, then (source, port, destination, port, hash of the addresses,
# hash with the ports).
KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
VERIFIED = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2CC18CD5, 0x40207D3D),
    ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0F0C461C, 0xDDE51BBF),
    ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024, 0x4B61E985, 0x02D1FEEF),
]
NONE, IPV4, TCPV4, UDPV4, IPV6, TCPV6, UDPV6, IPV6_EX, TCPV6_EX, UDPV6_EX = range(10)  # hash_report
ALL = 0x1FF
TCP, UDP, SCTP = 6, 17, 132
A, B, HOME, ROUTED = (bytes([n]) * 16 for n in (0x20, 0x21, 0x22, 0x23))
PORTS = struct.pack(">HH", 1000, 2000)
BARE = PORTS + bytes(16)
HOME_OPTION = b"\x01\x00\xc9\x10" + HOME  # PadN, then the home address
AT_HOME = (60, bytes([0, 2, 0, *HOME_OPTION[:1], 0]) + b"\xc9\x10" + HOME + bytes(1))
BY_ROUTE = (43, bytes([0, 2, 2, 1]) + bytes(4) + ROUTED)


def types(*reports: int) -> int:
    return sum(1 << report - 1 for report in reports)


def v4(protocol: int, payload: bytes, *, source: bytes = A[:4], target: bytes = B[:4], **fields: int) -> bytes:
    options = fields.get("options", 0)
    head = struct.pack(">BBHHHBBH", 0x40 | 5 + options, 0, 0, 0, fields.get("fragment", 0), 64, protocol, 0)
    return b"\0" * 12 + b"\x08\x00" + head + source + target + bytes(4 * options) + payload


def v6(protocol: int, payload: bytes, *headers: tuple[int, bytes], source: bytes = A, target: bytes = B) -> bytes:
    """With extension *headers*, each (its kind, its bytes, the first of which is the next kind and filled in here)."""
    kinds = [kind for kind, _ in headers] + [protocol]
    chain = b"".join(bytes([after]) + header[1:] for after, (_, header) in zip(kinds[1:], headers, strict=True))
    return b"\0" * 12 + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, 0, kinds[0], 64) + source + target + chain + payload


def tagged(frame: bytes, *kinds: bytes) -> bytes:
    return frame[:12] + b"".join(kind + b"\0\x07" for kind in kinds) + frame[12:]


def packed(address: str) -> bytes:
    return IPv6Address(address).packed if ":" in address else IPv4Address(address).packed


def report(enabled: int, frame: bytes) -> int:
    return FrameHash(enabled, KEY).hash(frame)[1]


@pytest.mark.parametrize("row", VERIFIED, ids=lambda row: row[0])
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_verification_vectors(row: tuple[str, int, str, int, int, int], protocol: int) -> None:
    source, port, target, to, of_addresses, of_ports = row
    build, first = (v6, IPV6) if ":" in source else (v4, IPV4)
    ports = struct.pack(">HH", port, to) + bytes(16)
    frame = build(protocol, ports, source=packed(source), target=packed(target))
    kind = {TCP: first + 1, UDP: first + 2, SCTP: first}[protocol]
    assert FrameHash(ALL, KEY).hash(frame) == (of_addresses if protocol == SCTP else of_ports, kind)
    assert FrameHash(types(first), KEY).hash(frame) == (of_addresses, first)


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=36))
def test_hash_is_the_sum_of_the_keys_windows_at_set_bits(key: bytes, data: bytes) -> None:
    """Toeplitz by its definition; a short key is followed by zeroes."""
    whole = int.from_bytes(key.ljust(40, b"\0"), "big")
    expected = 0
    for place in range(8 * len(data)):
        if data[place // 8] >> (7 - place % 8) & 1:
            expected ^= whole >> (320 - 32 - place) & 0xFFFF_FFFF
    assert FrameHash(ALL, key).raw(data) == expected


@pytest.mark.parametrize(
    ("frame", "enabled", "expected"),
    [
        (v4(TCP, BARE), types(IPV4, TCPV4, UDPV4), TCPV4),
        (v4(TCP, BARE), types(IPV4, UDPV4), IPV4),
        (v4(TCP, BARE), types(UDPV4, IPV6, TCPV6), NONE),
        (v4(UDP, BARE), types(IPV4, TCPV4, UDPV4), UDPV4),
        (v4(UDP, BARE), types(TCPV4, IPV4), IPV4),
        (v4(SCTP, BARE), ALL, IPV4),
        (v4(TCP, BARE, options=3), ALL, TCPV4),
        (v4(TCP, BARE, fragment=0x2000), ALL, IPV4),  # the first fragment
        (v4(TCP, BARE, fragment=0x0005), ALL, IPV4),  # a later one
        (v4(TCP, BARE, fragment=0x4000), ALL, TCPV4),  # do not fragment
        (v6(TCP, BARE), types(TCPV6, TCPV6_EX), TCPV6),
        (v6(TCP, BARE), types(TCPV6_EX, IPV6_EX), NONE),
        (v6(UDP, BARE), ALL, UDPV6),
        (v6(UDP, BARE), types(IPV6), IPV6),
        (v6(TCP, BARE, AT_HOME), ALL, TCPV6_EX),
        (v6(UDP, BARE, AT_HOME), ALL, UDPV6_EX),
        (v6(TCP, BARE, AT_HOME), types(IPV6_EX, TCPV6), IPV6_EX),
        (v6(TCP, BARE, AT_HOME), types(TCPV6, IPV6), TCPV6),
        (v6(TCP, BARE, AT_HOME), types(IPV6), IPV6),
        (v6(TCP, BARE, (44, bytes(8))), ALL, TCPV6_EX),  # a fragment that is the whole
        (v6(TCP, BARE, (44, bytes(3) + b"\x01" + bytes(4))), ALL, IPV6_EX),
        (v6(TCP, BARE, (51, b"\0\x04" + bytes(22))), ALL, TCPV6_EX),
        (v6(TCP, BARE, *[(60, bytes(8))] * 8), ALL, IPV6_EX),  # more headers than are passed over
        (v6(TCP, BARE, *[(60, bytes(8))] * 7), ALL, TCPV6_EX),
        (tagged(v4(TCP, BARE), b"\x81\x00"), ALL, TCPV4),
        (tagged(v6(UDP, BARE), b"\x88\xa8", b"\x81\x00"), ALL, UDPV6),
        (tagged(v4(TCP, BARE), *[b"\x81\x00"] * 3), ALL, NONE),
        (b"\xff" * 12 + b"\x08\x06" + bytes(46), ALL, NONE),  # ARP
        (v4(TCP, BARE), 0, NONE),
    ],
)
def test_type_of_the_hash(frame: bytes, enabled: int, expected: int) -> None:
    assert report(enabled, frame) == expected


@pytest.mark.parametrize(
    ("headers", "source", "target"),
    [
        ((AT_HOME,), HOME, B),
        ((BY_ROUTE,), A, ROUTED),
        (((0, bytes(8)), BY_ROUTE, AT_HOME), HOME, ROUTED),
        (((43, bytes([0, 2, 0, 1]) + bytes(20)),), A, B),  # routing of another type
        (((60, bytes([0, 0]) + b"\xc9\x10" + bytes(4)),), A, B),  # an option that ends behind its header
    ],
)
def test_addresses_of_extension_headers_are_hashed(
    headers: tuple[tuple[int, bytes], ...], source: bytes, target: bytes
) -> None:
    it = FrameHash(ALL, KEY)
    assert it.hash(v6(TCP, BARE, *headers)) == (it.raw(source + target + PORTS), TCPV6_EX)
    plain = FrameHash(types(TCPV6), KEY)
    assert plain.hash(v6(TCP, BARE, *headers)) == (plain.raw(A + B + PORTS), TCPV6)


@given(
    st.sampled_from([v4(TCP, BARE), v6(UDP, BARE), v6(TCP, BARE, BY_ROUTE, AT_HOME), tagged(v4(UDP, BARE), b"\x81\0")]),
    st.integers(0, 140),
    st.lists(st.tuples(st.integers(12, 139), st.integers(0, 255)), max_size=4),
)
def test_hostile_frame_is_hashed_by_what_is_there(frame: bytes, length: int, pokes: list[tuple[int, int]]) -> None:
    """Behind its end a frame has what it likes: nothing of that is looked at."""
    data = bytearray(frame.ljust(140, b"\0"))
    for at, value in pokes:
        data[at] = value
    it = FrameHash(ALL, KEY)
    others = bytes(data[:length]) + bytes(byte ^ 0xFF for byte in data[length:])
    assert it.hash(memoryview(data)[:length]) == it.hash(memoryview(others)[:length])


def test_table_chooses_the_pair_and_frames_without_a_hash_go_elsewhere() -> None:
    it = FrameHash(ALL, KEY, table=[3, 1, 2, 0], unclassified=7)
    assert it.steers
    assert [it.pair(value, TCPV4) for value in (0, 1, 2, 3, 4, 0xFFFF_FFFF)] == [3, 1, 2, 0, 3, 0]
    assert it.pair(0, NONE) == 7
    assert not FrameHash(ALL, KEY).steers


@pytest.mark.parametrize(
    ("enabled", "key", "table"), [(0x200, KEY, ()), (1, bytes(41), ()), (1, KEY, [0] * 129), (1, KEY, [0] * 3)]
)
def test_what_can_not_be_is_refused(enabled: int, key: bytes, table: list[int]) -> None:
    with pytest.raises(ValueError, match=r"key|power"):
        FrameHash(enabled, key, table=table)
    with pytest.raises(ValueError, match="37 bytes"):
        FrameHash(1, KEY).raw(bytes(37))
