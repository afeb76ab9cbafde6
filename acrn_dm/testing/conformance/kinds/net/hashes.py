"""Rules of hash reports (virtio 5.1.6.4.3, 5.1.6.4.4) and of receive-side scaling (5.1.6.5.7)."""

from collections.abc import Iterator

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import offers
from acrn_dm.testing.conformance.kinds.net import bits, packets
from acrn_dm.testing.conformance.kinds.net.card import ACK_OK, Card, Received, card
from acrn_dm.testing.conformance.kinds.net.packets import TCP_PROTOCOL, UDP_PROTOCOL, Flow, segment
from acrn_dm.testing.conformance.kinds.net.toeplitz import (
    HASH_CONFIG,
    IPV4,
    IPV6,
    KEY,
    NONE,
    REPORT_AT,
    RSS_CONFIG,
    TCPV4,
    TCPV6,
    UDPV4,
    UDPV6,
    addresses,
    hash_config,
    kind_of,
    rss_config,
    toeplitz,
    types,
    with_ports,
)
from acrn_dm.testing.conformance.rule import NotApplicable, rule

NET = ("net",)
TYPES_AT = 20  # supported_hash_types in the configuration space
FLOWS = [
    packets.flow(number, v6=v6, protocol=protocol)
    for number in (1, 2, 3)
    for v6 in (False, True)
    for protocol in (TCP_PROTOCOL, UDP_PROTOCOL)
]
OTHER_KEY = bytes(range(1, 41))


def _supported(c: Card) -> int:
    return int.from_bytes(c.driver.read_config(TYPES_AT, 4), "little")


def _configure(c: Card, enabled: int, key: bytes = KEY) -> int:
    """Enable hash types by whichever command there is; the acknowledgement."""
    if c.driver.features & bits.RSS:
        ack, _ = c.command(*RSS_CONFIG, rss_config(enabled, [0], 0, 1, key))
    else:
        ack, _ = c.command(*HASH_CONFIG, hash_config(enabled, key))
    return ack


def _reported(c: Card, data: bytes) -> tuple[int, int]:
    """(hash_report, hash_value) of a frame that arrives on the first pair."""
    c.post_enough()
    found = c.arrive(data)
    assert len(found) == 1, f"of one frame {len(found)} arrive"
    header = found[0].header
    value, report = header[REPORT_AT : REPORT_AT + 4], header[REPORT_AT + 4 : REPORT_AT + 6]
    return int.from_bytes(report, "little"), int.from_bytes(value, "little")


def _expected(of: Flow, enabled: int, key: bytes = KEY) -> tuple[int, int]:
    """(hash_report, hash_value): the transport's type, else the network's, else none."""
    kind = kind_of(of)
    if enabled & types(kind):
        return kind, toeplitz(with_ports(of), key)
    network = IPV6 if kind >= IPV6 else IPV4
    return (network, toeplitz(addresses(of), key)) if enabled & types(network) else (NONE, 0)


def _hashing(bench: Bench, without: int = 0) -> Card:
    c = card(bench, want=bits.HASH_REPORT, without=without)
    assert c.driver.features & bits.CTRL_VQ, "there is no queue to enable hash types by"
    return c


@rule("d.net.hash.initial", kinds=NET, needs=("HASH_REPORT",))
def no_hash_is_reported_until_asked_for(bench: Bench) -> None:
    c = _hashing(bench)
    for _ in range(2):
        for of in FLOWS[:4]:
            report, _ = _reported(c, segment(of).data)
            assert report == NONE, f"hash_report is {report} before any type is enabled"
        assert _configure(c, _supported(c)) == ACK_OK, "enabling the supported types is refused"
        c.driver.start(c.driver.features)


@rule("net.hash.report_needs_cmd", kinds=NET, needs=("HASH_REPORT",))
def hashes_can_be_had_with_one_pair(bench: Bench) -> None:
    c = _hashing(bench, without=bits.MQ)
    assert _configure(c, _supported(c)) == ACK_OK, "enabling the supported types is refused"
    assert any(_reported(c, segment(of).data)[0] for of in FLOWS[:4]), "no packet has a hash"


@rule("net.hash.hash_config_cmd", kinds=NET, needs=("HASH_REPORT",))
def hash_config_is_there_without_rss(bench: Bench) -> None:
    if bench.offered & bits.RSS:
        raise NotApplicable("RSS is offered")
    ack, _ = _hashing(bench).command(*HASH_CONFIG, hash_config(0, b""))
    assert ack == ACK_OK, f"HASH_CONFIG is acknowledged with {ack}"


@rule("net.hash.config_cmd", kinds=NET, needs=("HASH_REPORT",))
def hashes_can_be_had_where_the_device_steers(bench: Bench) -> None:
    c = _hashing(bench, without=bits.RSS)
    supported = _supported(c)
    ack, _ = c.command(*HASH_CONFIG, hash_config(supported))
    assert ack == ACK_OK, f"HASH_CONFIG is acknowledged with {ack}"
    for of in FLOWS[:4]:
        assert _reported(c, segment(of).data) == _expected(of, supported), f"not the hash of {of}"


@rule("d.net.hash.select", kinds=NET, needs=("HASH_REPORT",))
def transport_comes_before_network(bench: Bench) -> None:
    c = _hashing(bench)
    for key in (KEY, OTHER_KEY):
        for wanted in (0, types(IPV4), types(TCPV4, UDPV6), types(IPV4, UDPV4, IPV6), types(TCPV6, IPV6), 0x3F):
            enabled = wanted & _supported(c)
            assert _configure(c, enabled, key) == ACK_OK, f"enabling the types {enabled:#x} is refused"
            for of in FLOWS[:4]:
                found, expected = _reported(c, segment(of).data), _expected(of, enabled, key)
                assert found[0] == expected[0], f"{of} with types {enabled:#x} has the report {found[0]}"
                assert found[0] == NONE or found == expected, f"the hash of {of} is {found[1]:#x}"


@rule("d.net.rx.hash_none", kinds=NET, needs=("HASH_REPORT",))
def packet_that_is_no_ip_has_no_hash(bench: Bench) -> None:
    c = _hashing(bench)
    assert _configure(c, _supported(c)) == ACK_OK, "enabling the supported types is refused"
    for _ in range(2):
        report, _ = _reported(c, packets.frame(b"no IP"))
        assert report == NONE, f"a frame that is no IP has the report {report}"
        _reported(c, segment(FLOWS[0]).data)  # whose hash is not the next one's


def _scaling(bench: Bench) -> Card:
    """A card with several pairs, buffers in every receive queue. Raises NotApplicable."""
    c = card(bench, want=bits.RSS)
    if c.pairs < 2:
        raise NotApplicable("there is one pair")
    for pair in range(c.pairs):
        c.post_enough(pair)
    return c


def _steer(c: Card, table: list[int], unclassified: int, key: bytes = KEY) -> int:
    """RSS_CONFIG with all types that are supported; returns them."""
    enabled = _supported(c)
    ack, _ = c.command(*RSS_CONFIG, rss_config(enabled, table, unclassified, c.pairs, key))
    assert ack == ACK_OK, f"RSS_CONFIG is acknowledged with {ack}"
    return enabled


def _received_by(c: Card, data: bytes) -> list[int]:
    """The pairs on which a frame arrives."""
    c.network.deliver(data)
    found = [pair for pair in range(c.pairs) for got in c.received(pair) if _is(got, data)]
    for pair in found:
        c.post_enough(pair)
    return found


def _is(got: Received, data: bytes) -> bool:
    return got.data == data


def _tables(c: Card) -> Iterator[list[int]]:
    yield [number % c.pairs for number in range(16)]
    yield [(number // 3 + 1) % c.pairs for number in range(128)]
    yield [c.pairs - 1]


@rule("net.hash.rss_config_cmd", kinds=NET, needs=("RSS",))
def rss_config_is_there(bench: Bench) -> None:
    c = card(bench, want=bits.RSS)
    ack, _ = c.command(*RSS_CONFIG, rss_config(0, [0], 0, 1, b""))
    assert ack == ACK_OK, f"RSS_CONFIG is acknowledged with {ack}"


@rule("net.rss.hash", kinds=NET, needs=("RSS",))
def queue_is_that_of_the_hash(bench: Bench) -> None:
    c = _scaling(bench)
    for key in (KEY, OTHER_KEY):
        table = [number % c.pairs for number in range(64)]
        enabled = _steer(c, table, 0, key)
        for of in FLOWS:
            report, value = _expected(of, enabled, key)
            wanted = table[value & 63] if report else 0
            found = _received_by(c, segment(of).data)
            assert found == [wanted], f"a packet with the hash {value:#x} arrives on {found}, not on {wanted}"


@rule("net.rss.indirection", kinds=NET, needs=("RSS",))
def hash_is_an_index_into_the_table(bench: Bench) -> None:
    c = _scaling(bench)
    for table in _tables(c):
        enabled = _steer(c, table, 0)
        for of in FLOWS:
            report, value = _expected(of, enabled)
            wanted = table[value & len(table) - 1] if report else 0
            found = _received_by(c, segment(of).data)
            assert found == [wanted], f"by a table of {len(table)} a packet arrives on {found}, not on {wanted}"


@rule("net.rss.unclassified", kinds=NET, needs=("RSS",))
def packet_without_a_hash_has_a_queue_of_its_own(bench: Bench) -> None:
    c = _scaling(bench)
    for unclassified in range(c.pairs):
        _steer(c, [(unclassified + 1) % c.pairs], unclassified)
        found = _received_by(c, packets.frame(b"no IP"))
        assert found == [unclassified], f"a frame that is no IP arrives on {found}, not on {unclassified}"


@rule("net.rss.reset_drop", kinds=NET, needs=("RSS", "RING_RESET"))
def packet_for_a_queue_that_is_reset_is_dropped(bench: Bench) -> None:
    c = _scaling(bench)
    offers(bench, bits.RING_RESET)
    for gone in range(c.pairs):
        _steer(c, [gone], gone)
        c.driver.reset_queue(2 * gone)
        for of in FLOWS[:4]:
            c.network.deliver(segment(of).data)
        c.network.deliver(packets.frame(b"no IP"))
        bench.machine.settle()
        other = [pair for pair in range(c.pairs) if pair != gone and c.received(pair)]
        assert not other, f"packets for receive queue {gone}, which is reset, arrive on the pairs {other}"
        c.driver.setup_queue(2 * gone)
        c.post_enough(gone)
        assert not c.received(gone), "packets of before there was a queue arrive after all"
        assert _received_by(c, segment(FLOWS[0]).data) == [gone], "after its reset a receive queue gets nothing"
