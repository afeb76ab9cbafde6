"""virtio-net with ``iothread=N``: each pair has a thread of its own, and the control queue reaches them all."""

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from acrn_dm.testing.conformance.kinds.net import packets
from acrn_dm.testing.conformance.kinds.net.toeplitz import rss_config, toeplitz, with_ports
from tests.devices.virtio_net.net_rig import PLAIN, Card, card, frame
from tests.patience import comes_true

PAIRS, TEXT = 3, "tap=t0,mq=3,rss"
CONTROL = 2 * PAIRS
VQ_PAIRS_SET, RSS_CONFIG, NOTF_COAL_TX_SET = (4, 0), (4, 1), (6, 0)


@contextmanager
def running(text: str = "tap=t0,mq=3") -> Iterator[Card]:
    """A card whose loops run on threads, with receive buffers on every pair."""
    with card(text=text, threads=PAIRS) as c:
        loops = list(c.machine.io_loops.values())
        for pair in range(PAIRS):
            post(c, pair)
        for loop in loops:
            loop.start()
        yield c
        for loop in loops:
            loop.stop()


def post(c: Card, pair: int) -> None:
    queue = c.driver.queue(2 * pair)
    while queue.in_flight < 64:
        queue.send([], [2048])
    queue.kick()


def say(c: Card, command: tuple[int, int], data: bytes) -> int:
    queue = c.driver.queue(CONTROL)
    queue.send([bytes(command), data], [1])
    queue.kick()
    done = []
    assert comes_true(lambda: bool(done.extend(queue.completed()) or done)), "a command is answered"
    return done[0].data[0]


def arrived(c: Card, count: int) -> dict[bytes, int]:
    """Frame -> pair, of the next *count* that arrive."""
    found: dict[bytes, int] = {}

    def look() -> bool:
        for pair in range(PAIRS):
            for done in c.driver.queue(2 * pair).completed():
                found[done.data[12 : done.written]] = pair
            post(c, pair)
        return len(found) >= count

    assert comes_true(look), f"of {count} frames {len(found)} arrive"
    return found


@pytest.mark.parametrize(("threads", "names"), [(1, [0, 0, 0, 0]), (2, [0, 1, 0, 0]), (3, [0, 1, 2, 0])])
def test_pairs_are_spread_over_the_threads(threads: int, names: list[int]) -> None:
    with card(text=TEXT, threads=threads) as c:
        found = [c.device.thread(queue) % threads for queue in (0, 2, 4, CONTROL)]
        assert found == names
        assert set(c.machine.io_loops) == {f"iothr-{n}-net3:0" for n in set(names)}


def test_frames_pass_on_all_threads_at_once_both_ways() -> None:
    with running() as c:
        assert say(c, VQ_PAIRS_SET, struct.pack("<H", PAIRS)) == 0
        for n in range(20):
            for pair in range(PAIRS):
                c.peers[pair].send(PLAIN + frame(b"%d/%02d" % (pair, n)))
                c.driver.queue(2 * pair + 1).send([PLAIN, frame(b"out %d/%02d" % (pair, n))])
                c.driver.queue(2 * pair + 1).kick()
        found = arrived(c, 20 * PAIRS)
        assert found == {frame(b"%d/%02d" % (pair, n)): pair for pair in range(PAIRS) for n in range(20)}
        for pair in range(PAIRS):
            c.peers[pair].settimeout(10)
            sent = [c.peers[pair].recv(100) for _ in range(20)]
            assert sent == [PLAIN + frame(b"out %d/%02d" % (pair, n)) for n in range(20)]


def test_frames_are_steered_from_one_thread_to_another_and_none_is_lost() -> None:
    with running(TEXT) as c:
        table = [number % PAIRS for number in range(64)]
        flows = [packets.flow(number) for number in range(1, 40)]
        for shift in range(5):
            turned = table[shift:] + table[:shift]
            assert say(c, RSS_CONFIG, rss_config(0x1FF, turned, 0, PAIRS)) == 0
            expected = {}
            for n, of in enumerate(flows):
                data = packets.segment(of, b"%d" % shift).data
                expected[data] = turned[toeplitz(with_ports(of)) & 63]
                c.peers[n % PAIRS].send(PLAIN + data)
            assert arrived(c, len(flows)) == expected


def test_commands_reach_pairs_whose_threads_are_busy() -> None:
    with running() as c:
        assert say(c, VQ_PAIRS_SET, struct.pack("<H", PAIRS)) == 0
        before = time.monotonic()
        for n in range(40):
            for pair in range(PAIRS):
                c.driver.queue(2 * pair + 1).send([PLAIN, frame(b"%d" % n)])
                c.driver.queue(2 * pair + 1).kick()
            assert say(c, NOTF_COAL_TX_SET, struct.pack("<II", n % 3, 50)) == 0
            assert say(c, VQ_PAIRS_SET, struct.pack("<H", 1 + n % PAIRS)) == 0
            for pair in range(PAIRS):
                c.driver.queue(2 * pair + 1).completed()
        assert time.monotonic() - before < 60
        c.driver.reset()
        assert comes_true(lambda: c.driver.status == 0)
