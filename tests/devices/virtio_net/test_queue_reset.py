"""virtio-net while one of its queues is reset alone (5.1.6.5.5.2, ``ethtool -G``): the others go on."""

import pytest

from tests.devices.virtio_net.net_rig import PLAIN, RX, TX, card, frame
from tests.devices.virtio_net.test_switches import CONTROL, drain, fetch_without_room, post, received, set_pairs

PENDING = PLAIN + frame(b"late")
pytestmark = pytest.mark.usefixtures("way")


@pytest.mark.parametrize("queue", [RX, TX])
def test_other_queue_of_the_pair_goes_on(queue: int) -> None:
    with card() as c:
        c.driver.reset_queue(queue)
        if queue == RX:
            c.tx.transfer([PLAIN, frame(b"out")])
            assert c.sent() == [PLAIN + frame(b"out")]
        else:
            c.post(2048)
            assert [d.data[12 : d.written] for d in c.inject(PLAIN + frame(b"in"))] == [frame(b"in")]


def test_frame_that_comes_without_a_receive_queue_is_dropped() -> None:
    with card() as c:
        c.driver.reset_queue(RX)
        for _ in range(200):  # more than one turn of the loop takes
            c.peer.send(PENDING)
        c.machine.settle()
        c.driver.setup_queue(RX, size=256)
        c.post(2048)
        assert [d.data[12 : d.written] for d in c.inject(PLAIN + frame(b"new"))] == [frame(b"new")]


def test_frame_that_waits_for_room_is_dropped_with_its_queue() -> None:
    with card(text="tap=t0,mq=2") as c:
        fetch_without_room(c, 0, PENDING)
        c.driver.reset_queue(RX)
        c.driver.setup_queue(RX)
        post(c, RX, 2048)
        assert received(c, RX) == []


def test_pair_without_both_queues_leaves_nothing_waiting() -> None:
    with card() as c:
        for index in (TX, RX):
            c.driver.reset_queue(index)
        c.peer.send(PENDING)
        c.machine.settle()
        for index in (RX, TX):
            c.driver.setup_queue(index)
        c.tx.transfer([PLAIN, frame(b"out")])
        c.post(2048)
        assert c.rx.completed() == []


def test_control_queue_comes_back_and_what_it_said_holds() -> None:
    with card(text="tap=t0,mq=2") as c:
        assert set_pairs(c, 2) == b"\0"
        c.driver.reset_queue(CONTROL)
        c.driver.setup_queue(CONTROL, size=16)
        assert c.device.wants_queue(2)
        assert set_pairs(c, 1) == b"\0"
        assert not c.device.wants_queue(2)


def test_pair_that_rests_stays_at_rest_when_its_queue_comes_back() -> None:
    with card(text="tap=t0,mq=2") as c:
        c.driver.reset_queue(2)
        c.driver.setup_queue(2)
        post(c, 2, 2048)
        c.peers[1].send(PENDING)
        c.machine.settle()
        assert received(c, 2) == []
        assert set_pairs(c, 2) == b"\0"
        assert received(c, 2) == [frame(b"late")]


def test_transmit_queue_that_waited_for_the_tap_is_forgotten() -> None:
    with card() as c:
        for number in range(400):
            c.tx.send([PLAIN, frame(bytes((number & 0xFF,)), size=1400)])
        c.tx.kick(force=True)
        c.machine.settle()
        assert c.tx.in_flight > len(c.tx.completed())
        c.driver.reset_queue(TX)
        drain(c, 0)
        c.machine.settle()
        assert drain(c, 0) == 0
        c.driver.setup_queue(TX)
        c.tx.transfer([PLAIN, frame(b"out")])
        assert c.sent() == [PLAIN + frame(b"out")]
