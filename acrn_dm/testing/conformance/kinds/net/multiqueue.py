"""Rules of several queue pairs (virtio 5.1.6.5.5)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.net import bits, packets
from acrn_dm.testing.conformance.kinds.net.card import ACK_ERROR, Card, card
from acrn_dm.testing.conformance.kinds.net.packets import segment
from acrn_dm.testing.conformance.rule import NotApplicable, rule

NET = ("net",)
PAIRS_SET, RSS_CONFIG = (4, 0), (4, 1)
FLOWS = 16


def _several(bench: Bench, *, want: int = 0) -> Card:
    """A card with more than one pair, buffers in every receive queue. Raises NotApplicable."""
    c = card(bench, want=bits.MQ | want)
    if c.pairs < 2:
        raise NotApplicable("there is one pair")
    for pair in range(c.pairs):
        c.post_enough(pair)
    return c


def _use(c: Card, pairs: int) -> None:
    c.must(*PAIRS_SET, pairs.to_bytes(2, "little"))


def _arrivals(c: Card, rounds: int = 1) -> dict[int, set[int]]:
    """Queue pair -> numbers of the flows that arrive on it, when each sends so many packets. None is lost."""
    found: dict[int, set[int]] = {}
    for number in range(1, FLOWS + 1):
        for _ in range(rounds):
            data = segment(packets.flow(number)).data
            c.network.deliver(data)
            pairs = [pair for pair in range(c.pairs) for r in c.received(pair) if r.data == data]
            assert len(pairs) == 1, f"a packet arrives on the pairs {pairs}"
            found.setdefault(pairs[0], set()).add(number)
            c.post_enough(pairs[0])
    return found


@rule("net.mq.default_q1", kinds=NET, needs=("MQ",))
def first_pair_is_used_until_told_otherwise(bench: Bench) -> None:
    c = _several(bench)
    assert set(_arrivals(c)) == {0}, "packets arrive behind the first pair before VQ_PAIRS_SET"
    _use(c, c.pairs)
    c = _several(bench)
    assert set(_arrivals(c)) == {0}, "packets arrive behind the first pair after a reset"


@rule("d.net.mq.default", kinds=NET, needs=("MQ",))
def one_pair_switches_the_others_off(bench: Bench) -> None:
    c = _several(bench)
    _use(c, c.pairs)
    assert len(_arrivals(c)) > 1, f"{FLOWS} flows arrive on one pair of {c.pairs}"
    _use(c, 1)
    assert set(_arrivals(c)) == {0}, "packets arrive behind the first pair after VQ_PAIRS_SET 1"


@rule("net.mq.limit", kinds=NET, needs=("MQ",))
def no_packet_behind_the_pairs_in_use(bench: Bench) -> None:
    c = _several(bench)
    for pairs in (*range(c.pairs, 0, -1), c.pairs, 1):
        _use(c, pairs)
        beyond = [pair for pair in _arrivals(c) if pair >= pairs]
        assert not beyond, f"packets arrive on the pairs {beyond} where {pairs} are used"
    for wrong in (0, c.pairs + 1, 0xFFFF):
        ack, _ = c.command(*PAIRS_SET, wrong.to_bytes(2, "little"))
        assert ack == ACK_ERROR, f"VQ_PAIRS_SET {wrong} is acknowledged with {ack}, where there are {c.pairs}"
    assert set(_arrivals(c)) == {0}, "a refused VQ_PAIRS_SET changes what is used"


@rule("net.mq.auto", kinds=NET, needs=("MQ",))
def flow_stays_on_its_queue(bench: Bench) -> None:
    c = _several(bench)
    _use(c, c.pairs)
    found = _arrivals(c, rounds=3)
    for number in range(1, FLOWS + 1):
        pairs = [pair for pair, flows in found.items() if number in flows]
        assert len(pairs) == 1, f"packets of one flow arrive on the pairs {pairs}"


@rule("net.mq.auto.follow_tx", kinds=NET, needs=("MQ",))
def flow_arrives_where_it_is_sent(bench: Bench) -> None:
    c = _several(bench)
    _use(c, c.pairs)
    for pair in (*range(c.pairs), *range(c.pairs - 1, -1, -1)):
        there = packets.flow(1)
        c.send(segment(there.reverse()).data, pair=pair)
        c.seen()
        data = segment(there).data
        c.network.deliver(data)
        pairs = [p for p in range(c.pairs) if any(r.data == data for r in c.received(p))]
        assert pairs == [pair], f"a flow that is sent on pair {pair} arrives on {pairs}"
        c.post_enough(pair)


@rule("d.net.mq.last_cmd", kinds=NET, needs=("MQ", "RSS"))
def last_command_says_how_queues_are_chosen(bench: Bench) -> None:
    c = _several(bench, want=bits.RSS)
    unclassified, table = (c.pairs - 1).to_bytes(2, "little"), (c.pairs - 1).to_bytes(2, "little")
    data = bytes(4) + b"\0\0" + unclassified + table + c.pairs.to_bytes(2, "little") + b"\x28" + bytes(40)
    c.must(*RSS_CONFIG, data)
    assert set(_arrivals(c)) == {c.pairs - 1}, "RSS_CONFIG does not choose the queue"
    _use(c, 1)
    assert set(_arrivals(c)) == {0}, "VQ_PAIRS_SET after RSS_CONFIG does not choose the queue"


@rule("net.mq.reset_reselect", kinds=NET, needs=("MQ", "RING_RESET"))
def flows_move_from_a_queue_that_is_reset(bench: Bench) -> None:
    """5.1.6.5.5.2."""
    c = _several(bench)
    _use(c, c.pairs)
    for gone in range(c.pairs):
        c.driver.reset_queue(2 * gone)
        left = [pair for pair in range(c.pairs) if pair != gone]
        for number in range(1, FLOWS + 1):
            data = segment(packets.flow(number)).data
            c.network.deliver(data)
            pairs = [pair for pair in left for r in c.received(pair) if r.data == data]
            assert len(pairs) == 1, f"with receive queue {gone} reset, a packet arrives on the pairs {pairs}"
            c.post_enough(pairs[0])
        c.driver.setup_queue(2 * gone)
        c.post_enough(gone)
    assert len(_arrivals(c)) > 1, "after its reset a receive queue gets nothing"


@rule("net.mq.reset_drop", kinds=NET, needs=("MQ", "RING_RESET"))
def packets_without_a_receive_queue_are_dropped(bench: Bench) -> None:
    """5.1.6.5.5.2."""
    c = _several(bench)
    _use(c, c.pairs)
    for pair in range(c.pairs):
        c.driver.reset_queue(2 * pair)
    for number in range(1, FLOWS + 1):
        c.network.deliver(segment(packets.flow(number)).data)
    bench.machine.settle()
    for pair in range(c.pairs):
        c.driver.setup_queue(2 * pair)
        c.post_enough(pair)
    bench.machine.settle()
    late = [pair for pair in range(c.pairs) if c.received(pair)]
    assert not late, f"packets of before there were receive queues arrive on the pairs {late}"
    assert _arrivals(c), "no packet arrives after the receive queues were reset"
