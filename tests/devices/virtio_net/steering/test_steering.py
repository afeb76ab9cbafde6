"""virtio-net with ``rss`` and ``hash``: what a card does with frames that belong to another pair's queue."""

import struct

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.steering.inbox import LIMIT
from acrn_dm.testing.conformance.kinds.net import packets
from acrn_dm.testing.conformance.kinds.net.toeplitz import KEY, rss_config, toeplitz, types, with_ports
from tests.devices.virtio_net.net_rig import PLAIN, Card, card, frame
from tests.virtio.pause import pause, resume

RSS_CONFIG, HASH_CONFIG, VQ_PAIRS_SET, PROMISC = (4, 1), (4, 2), (4, 0), (0, 0)
PAIRS, TEXT = 3, "tap=t0,mq=3,rss"
FLOWS = [packets.flow(number) for number in range(1, 30)]
TABLE = [number % PAIRS for number in range(64)]


def say(c: Card, command: tuple[int, int], data: bytes) -> int:
    return c.driver.queue(2 * PAIRS).transfer([bytes(command), data], [1]).data[0]


def steer(c: Card, table: list[int] = TABLE, unclassified: int = 0) -> int:
    return say(c, RSS_CONFIG, rss_config(0x1FF, table, unclassified, PAIRS))


def post(c: Card, *pairs: int, count: int = 32) -> None:
    for pair in pairs:
        for _ in range(count):
            c.driver.queue(2 * pair).send([], [2048])
        c.driver.queue(2 * pair).kick()
    c.machine.settle()


def received(c: Card, pair: int) -> list[bytes]:
    c.machine.settle()
    return [done.data[12 : done.written] for done in c.driver.queue(2 * pair).completed()]


def test_frames_go_to_the_queue_of_their_hash_whichever_descriptor_they_come_by() -> None:
    with card(text=TEXT) as c:
        assert steer(c) == 0
        post(c, *range(PAIRS))
        sent = {data: TABLE[toeplitz(with_ports(of)) & 63] for of in FLOWS for data in [packets.segment(of).data]}
        for n, data in enumerate(sent):
            c.peers[n % PAIRS].send(PLAIN + data)
        found = {data: pair for pair in range(PAIRS) for data in received(c, pair)}
        assert found == sent
        assert len(set(found.values())) == PAIRS


def test_flow_keeps_its_order() -> None:
    with card(text=TEXT) as c:
        steer(c, [1])
        post(c, 1, count=64)
        for n in range(60):
            c.peers[2].send(PLAIN + packets.segment(FLOWS[0], b"%02d" % n).data)
        assert [data[-2:] for data in received(c, 1)] == [b"%02d" % n for n in range(60)]


def test_queue_without_buffers_holds_up_nobody_and_keeps_what_it_can() -> None:
    with card(text=TEXT) as c:
        steer(c, [1], unclassified=0)
        post(c, 0)
        stuck = packets.segment(FLOWS[0]).data
        for _ in range(1 + LIMIT + 50):
            c.peers[0].send(PLAIN + stuck)
            c.machine.settle()
        c.peers[0].send(PLAIN + frame(b"goes on"))
        assert received(c, 0) == [frame(b"goes on")]
        kept = []
        for _ in range(LIMIT // 64 + 1):
            post(c, 1, count=64)
            kept += received(c, 1)
        assert kept == [stuck] * (1 + LIMIT)
        assert c.device.pairs[1].rx is not None
        assert c.device.pairs[1].rx.dropped == 50


def test_steering_survives_a_pause_and_ends_with_the_driver() -> None:
    with card(text=TEXT) as c:
        steer(c, [2])
        pause(c.machine.bus.functions[0])
        resume(c.machine.bus.functions[0])
        post(c, *range(PAIRS))
        data = packets.segment(FLOWS[0]).data
        c.peers[1].send(PLAIN + data)
        assert received(c, 2) == [data]
        c.driver.start()
        post(c, 0)
        c.peers[0].send(PLAIN + data)
        assert received(c, 0) == [data]


def test_pairs_by_number_end_steering_and_keep_the_hashes() -> None:
    with card(text="tap=t0,mq=3,rss,hash") as c:
        steer(c, [2])
        assert say(c, VQ_PAIRS_SET, b"\1\0") == 0
        post(c, 0)
        c.peers[0].send(bytes(20) + packets.segment(FLOWS[0]).data)
        c.machine.settle()
        (done,) = c.driver.queue(0).completed()
        assert struct.unpack_from("<IH", done.data, 12) == (toeplitz(with_ports(FLOWS[0])), 2)


def test_refused_command_changes_nothing() -> None:
    with card(text=TEXT) as c:
        steer(c, [1])
        assert say(c, RSS_CONFIG, rss_config(types(1), [PAIRS], 0, 1)) == 1
        assert say(c, HASH_CONFIG, bytes(13)) == 1  # HASH_REPORT is not offered
        post(c, *range(PAIRS))
        c.peers[0].send(PLAIN + packets.segment(FLOWS[0]).data)
        assert received(c, 1) == [packets.segment(FLOWS[0]).data]


def test_filter_holds_for_frames_that_were_handed_over() -> None:
    with card(text=TEXT) as c:
        steer(c, [1])
        post(c, 1)
        assert say(c, PROMISC, b"\0") == 0
        c.peers[0].send(PLAIN + packets.segment(FLOWS[0], to=b"\2\0\0\0\0\x77").data)
        c.peers[0].send(PLAIN + packets.segment(FLOWS[0], b"for us", to=c.driver.read_config(0, 6)).data)
        assert [data[-6:] for data in received(c, 1)] == [b"for us"]


def test_frames_wait_for_no_queue_that_the_driver_never_enabled() -> None:
    """Its descriptor of the interface gets no frames: nobody would read them."""
    with card(text=TEXT) as c:
        c.driver.start(queues=[0, 1, 4, 5, 2 * PAIRS])
        attachments: list[bool] = []
        c.taps[1].attach = c.taps[0].attach = attachments.append  # type: ignore[method-assign]
        assert steer(c, [2], unclassified=2) == 0
        assert attachments == [True, False]


def test_link_that_is_cut_loses_what_was_handed_over() -> None:
    with card(text=TEXT) as c:
        steer(c, [1])
        c.peers[0].send(PLAIN + packets.segment(FLOWS[0]).data)
        c.machine.settle()
        c.device.set_link(False)
        c.device.set_link(True)
        post(c, 1)
        assert received(c, 1) == []


def test_header_has_room_for_the_hash_in_both_directions() -> None:
    with card(text="tap=t0,hash") as c:
        assert c.tap.settings[-1][0] == 20
        c.tx.transfer([bytes(20), frame(b"out")])
        assert c.sent() == [bytes(20) + frame(b"out")]


def test_configuration_says_what_there_is() -> None:
    with card(text="tap=t0,mq=3,rss,hash") as c:
        assert c.driver.features & (1 << 57 | 1 << 60) == 1 << 57 | 1 << 60
        assert c.driver.read_config(17, 7) == struct.pack("<BHI", len(KEY), 128, 0x1FF)
    with card() as c:
        assert not c.driver.features & (1 << 57 | 1 << 60)


@pytest.mark.parametrize("text", ["tap=t0,vhost,rss", "vhost-user=/s,hash", "tap=t0,vhost=auto,hash=on"])
def test_hashes_are_for_frames_that_this_process_moves(text: str) -> None:
    with pytest.raises(ConfigError, match="rss and hash"):
        NetConfig.from_string(text)
