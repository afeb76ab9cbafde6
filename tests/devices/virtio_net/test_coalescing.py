"""acrn_dm.devices.virtio_net.coalescing: what the driver says of its queues' interrupts, and how long that lasts."""

import struct

import pytest

from acrn_dm.testing import VirtualClock
from tests.devices.virtio_net.net_rig import PLAIN, Card, card, frame
from tests.virtio.pause import pause, resume

pytestmark = pytest.mark.usefixtures("way")
TX_SET, RX_SET, VQ_SET, VQ_GET = (6, 0), (6, 1), (6, 2), (6, 3)
MODERN, CTRL_VQ, COALESCING = 1 << 32, 1 << 17, 1 << 53 | 1 << 52
TWO_PAIRS, CONTROL = "tap=t0,mq=2", 4


def say(c: Card, command: tuple[int, int], *values: int, control: int = CONTROL) -> int:
    """The acknowledgement of a command for all queues of a kind, or for one."""
    data = struct.pack("<II", *values) if len(values) == 2 else struct.pack("<HHII", values[0], 0xFFFF, *values[1:])
    return c.driver.queue(control).transfer([bytes(command), data], [1]).data[0]


def limits(c: Card, queue: int, control: int = CONTROL) -> tuple[int, ...] | None:
    """What the card says of *queue*; None where it refuses to."""
    done = c.driver.queue(control).transfer([bytes(VQ_GET), struct.pack("<HH", queue, 0)], [1, 8])
    assert done.written == (9 if done.data[0] == 0 else 1)
    return struct.unpack("<II", done.data[1:]) if done.data[0] == 0 else None


def test_last_word_on_a_queue_counts_whichever_command_said_it() -> None:
    """The example of 5.1.6.5.10."""
    with card(text=TWO_PAIRS) as c:
        assert say(c, RX_SET, 3, 30) == 0
        assert [limits(c, queue) for queue in range(4)] == [(3, 30), (0, 0), (3, 30), (0, 0)]
        assert say(c, VQ_SET, 0, 4, 40) == 0
        assert [limits(c, 0), limits(c, 2)] == [(4, 40), (3, 30)]
        assert say(c, VQ_SET, 1, 5, 50) == 0
        assert [limits(c, 1), limits(c, 3)] == [(5, 50), (0, 0)]
        assert say(c, TX_SET, 6, 60) == 0
        assert [limits(c, queue) for queue in range(4)] == [(4, 40), (6, 60), (3, 30), (6, 60)]


@pytest.mark.parametrize("queue", [CONTROL, 5, 2 * CONTROL, 0xFFFF])
def test_queue_that_carries_no_frames_is_refused(queue: int) -> None:
    with card(text=TWO_PAIRS) as c:
        assert say(c, VQ_SET, queue, 1, 1) == 1
        assert limits(c, queue) is None


def test_queue_that_is_reset_alone_has_no_limits_and_comes_back_with_those_of_its_kind() -> None:
    with card(text=TWO_PAIRS) as c:
        say(c, RX_SET, 3, 30)
        for queue in (0, 1):
            say(c, VQ_SET, queue, 4, 40)
            c.driver.reset_queue(queue)
            assert (say(c, VQ_SET, queue, 5, 50), limits(c, queue)) == (1, None)
            c.driver.setup_queue(queue)
        assert [limits(c, 0), limits(c, 1)] == [(3, 30), (0, 0)]


def test_limits_survive_a_pause_and_end_with_the_driver() -> None:
    with card(text=TWO_PAIRS) as c:
        say(c, TX_SET, 3, 30)
        say(c, VQ_SET, 2, 4, 40)
        pause(c.machine.bus.functions[0])
        resume(c.machine.bus.functions[0])
        assert [limits(c, queue) for queue in range(4)] == [(0, 0), (3, 30), (4, 40), (3, 30)]
        c.driver.start()
        assert [limits(c, queue) for queue in range(4)] == [(0, 0)] * 4


def test_commands_without_their_features_are_refused() -> None:
    with card(features=MODERN | CTRL_VQ) as c:
        assert [say(c, TX_SET, 1, 1, control=2), say(c, VQ_SET, 0, 1, 1, control=2)] == [1, 1]
        assert limits(c, 0, control=2) is None


def test_answer_without_room_for_it_is_an_error() -> None:
    with card(text=TWO_PAIRS) as c:
        done = c.driver.queue(CONTROL).transfer([bytes(VQ_GET), bytes(4)], [1, 7])
        assert (done.data[0], done.written) == (1, 1)


def test_interrupts_of_both_directions_wait_for_packets_and_time() -> None:
    with card(clock=VirtualClock()) as c:
        assert say(c, TX_SET, 3, 1000, control=2) == say(c, RX_SET, 2, 5000, control=2) == 0
        sent = c.driver.queue_interrupts(1)
        for due in (0, 0, 1):
            c.tx.send([PLAIN, frame()])
            c.tx.kick()
            c.machine.settle()
            assert c.driver.queue_interrupts(1) == sent + due
        c.post(*[2048] * 8)
        received = c.driver.queue_interrupts(0)
        c.peer.send(PLAIN + frame())
        c.machine.settle()
        assert c.driver.queue_interrupts(0) == received
        c.machine.advance(0.0051)
        assert c.driver.queue_interrupts(0) == received + 1


def test_packet_in_several_buffers_is_one_packet() -> None:
    with card(clock=VirtualClock()) as c:
        c.post(*[256] * 16)
        say(c, RX_SET, 2, 1000, control=2)
        before = c.driver.queue_interrupts(0)
        for due in (0, 1):
            c.peer.send(PLAIN + frame(size=1000))
            c.machine.settle()
            assert c.driver.queue_interrupts(0) == before + due
        assert len(c.rx.completed()) == 8
