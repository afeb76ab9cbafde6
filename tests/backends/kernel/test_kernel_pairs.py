"""Several queue pairs on kernel vhost: a node for each, and the control queue, which stays here."""

import errno

import pytest

from acrn_dm.devices.virtio_net.control import ACK_ERROR, ACK_OK
from acrn_dm.devices.virtio_net.request import (
    CTRL_GUEST_OFFLOADS,
    CTRL_VQ,
    GUEST_CSUM,
    MQ,
)
from acrn_dm.testing.driver import NEEDS_RESET
from acrn_dm.virtio.features import ACCESS_PLATFORM, OFFERED_BY_PCI
from tests.backends.kernel.kernel_rig import VhostCard, vhost_card
from tests.virtio.pause import pause, resume


def command(card: VhostCard, index: int, group: int, number: int, data: bytes) -> bytes:
    """Send a control command as three buffers; the acknowledgement."""
    return card.driver.queue(index).transfer([bytes((group, number)), data], [1]).data


def test_each_pair_has_its_own_node_and_tap() -> None:
    with vhost_card("tap=t0,vhost,mq=3") as card:
        card.driver.start()
        assert command(card, 6, 4, 0, b"\x03\x00") == ACK_OK
        assert len(card.kernel.nodes) == len(card.taps) == 3
        for node, tap in zip(card.kernel.nodes, card.taps, strict=True):
            assert [(index, ring.backend) for index, ring in sorted(node.rings.items())] == [(0, tap.fd), (1, tap.fd)]
        for queue in range(6):
            assert card.echo(queue) == b"ba"
        assert card.driver.read_config(8, 2) == b"\x03\x00"


def test_every_descriptor_learns_the_header_and_the_offloads() -> None:
    """A macvtap keeps the header's length for each of them, also for those that are switched on later."""
    with vhost_card("tap=t0,vhost,mq=3") as card:
        card.driver.start(MQ | CTRL_VQ | GUEST_CSUM | CTRL_GUEST_OFFLOADS)
        assert [tap.settings for tap in card.taps] == [[(12, GUEST_CSUM)]] * 3
        assert command(card, 6, 5, 0, bytes(8)) == ACK_OK
        assert [tap.settings[-1] for tap in card.taps] == [(12, 0)] * 3


def test_driver_chooses_how_many_pairs_are_used() -> None:
    with vhost_card("tap=t0,vhost,mq=3") as card:
        card.driver.start()
        assert [tap.attached for tap in card.taps] == [True, False, False]
        assert command(card, 6, 4, 0, b"\x02\x00") == ACK_OK
        assert [tap.attached for tap in card.taps] == [True, True, False]
        card.driver.reset()
        card.driver.start()
        assert [tap.attached for tap in card.taps] == [True, False, False]


def test_net_mq_limit_in_the_kernel() -> None:
    """net.mq.limit: the receive queue of a pair that rests has no tap, so what the kernel has read goes nowhere."""
    with vhost_card("tap=t0,vhost,mq=3") as card:
        card.driver.start()
        for used in (1, 3, 2, 1):
            assert command(card, 6, 4, 0, used.to_bytes(2, "little")) == ACK_OK
            for pair, (node, tap) in enumerate(zip(card.kernel.nodes, card.taps, strict=True)):
                joined = {index: ring.backend for index, ring in node.rings.items()}
                assert joined == {0: tap.fd if pair < used else -1, 1: tap.fd}
        card.driver.reset()
        assert card.nothing_is_left


def test_kernel_that_does_not_switch_a_pair_costs_a_reset() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.driver.start()
        card.kernel.fail(errno.EBADFD, call="NET_SET_BACKEND 0")
        command(card, 4, 4, 0, b"\x02\x00")
        card.machine.settle()
        assert card.driver.status & NEEDS_RESET
        card.driver.start()
        assert card.driver.status & NEEDS_RESET == 0


@pytest.mark.parametrize(
    ("group", "number", "data"),
    [
        (4, 0, b"\x00\x00"),
        (4, 0, b"\x04\x00"),
        (4, 0, b"\x01"),
        (4, 0, b"\x01\x00\x00"),
        (4, 1, b"\x01\x00"),
        (0, 0, b"\x01"),
        (5, 0, (1 << 15).to_bytes(8, "little")),
    ],
)
def test_command_that_can_not_be_carried_out_is_refused(group: int, number: int, data: bytes) -> None:
    with vhost_card("tap=t0,vhost,mq=3") as card:
        card.driver.start()
        assert command(card, 6, group, number, data) == ACK_ERROR
        assert command(card, 6, 4, 0, b"\x03\x00") == ACK_OK


def test_driver_switches_guest_offloads() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.driver.start()
        assert command(card, 4, 5, 0, GUEST_CSUM.to_bytes(8, "little")) == ACK_OK
        assert card.taps[0].settings[-1] == (12, GUEST_CSUM)


def test_tap_that_refuses_a_command_is_reported_to_the_driver() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.driver.start()
        card.taps[0].fail_next = errno.EINVAL
        assert command(card, 4, 5, 0, bytes(8)) == ACK_ERROR


def test_control_queue_of_a_driver_without_mq_is_number_two() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.driver.start(CTRL_VQ | 1 << 2, queues=[0, 1, 2])
        assert command(card, 2, 5, 0, bytes(8)) == ACK_OK
        assert command(card, 2, 4, 0, b"\x02\x00") == ACK_ERROR
        assert not card.kernel.nodes[1].owned


def test_queues_a_driver_has_no_right_to_stay_out_of_the_kernel_and_do_nothing() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.driver.start(0)  # neither MQ nor CTRL_VQ, and enables all five queues
        assert [node.owned for node in card.kernel.nodes] == [True, False]
        for index in (2, 3, 4):
            card.driver.queue(index).send([b"\x04\x00\x02\x00"], [1])
            card.driver.queue(index).kick(force=True)
        card.machine.settle()
        assert card.machine.failures == []


def test_driver_that_paused_keeps_its_pairs_and_offloads() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.driver.start()
        assert command(card, 4, 4, 0, b"\x02\x00") == ACK_OK
        assert command(card, 4, 5, 0, GUEST_CSUM.to_bytes(8, "little")) == ACK_OK
        pause(card.machine.bus.functions[0])
        resume(card.machine.bus.functions[0])
        assert [tap.attached for tap in card.taps] == [True, True]
        assert card.taps[0].settings[-1] == (12, GUEST_CSUM)
        card.driver.start()
        assert [tap.attached for tap in card.taps] == [True, False]
        assert card.taps[0].settings[-1] != (12, GUEST_CSUM)


def test_tap_that_refuses_another_pair_leaves_those_there_are() -> None:
    with vhost_card("tap=t0,vhost,mq=3") as card:
        card.driver.start()
        card.taps[2].fail_next = errno.EBUSY
        assert command(card, 6, 4, 0, b"\x03\x00") == ACK_ERROR
        assert [tap.attached for tap in card.taps] == [True, False, False]


def test_control_command_without_an_acknowledgement_byte_is_the_drivers_fault() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.driver.start()
        card.driver.queue(4).send([b"\x04\x00\x01\x00"], [])
        card.driver.queue(4).kick()
        card.machine.settle()
        assert card.driver.status & NEEDS_RESET


def test_second_node_that_fails_takes_the_first_one_back() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.kernel.fail(errno.EBUSY, call="SET_OWNER", after=1)
        card.driver.start()
        assert card.driver.status & NEEDS_RESET
        assert card.nothing_is_left
        card.driver.start()
        assert card.echo(3) == b"ba"


def test_pairs_work_in_this_process_as_well() -> None:
    with vhost_card("tap=t0,mq=2") as card:
        card.driver.start()
        assert card.kernel.nodes == []
        assert card.driver.features & (MQ | CTRL_VQ) == MQ | CTRL_VQ
        assert command(card, 4, 4, 0, b"\x02\x00") == ACK_OK
        assert [tap.attached for tap in card.taps] == [True, True]
        for queue in (1, 3):
            done = card.driver.queue(queue).transfer([bytes(12) + bytes(60)])
            assert done.written == 0


def test_receive_queue_that_is_reset_has_no_tap_and_no_ring_in_the_kernel() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.driver.start()
        assert command(card, 4, 4, 0, b"\x02\x00") == ACK_OK
        card.kernel.take_log()
        card.driver.reset_queue(2)
        assert [tap.attached for tap in card.taps] == [True, False]
        assert [call for call in card.kernel.take_log() if "eventfd" not in call and "irqfd" not in call] == [
            "NET_SET_BACKEND 0 -1",
            "SET_VRING_KICK 0 -1",
            "SET_VRING_CALL 0 -1",
            "SET_VRING_ERR 0 -1",
        ]
        for queue in (0, 1, 3):
            assert card.echo(queue) == b"ba"
        card.driver.setup_queue(2, size=16)
        assert [tap.attached for tap in card.taps] == [True, True]
        for _ in range(40):
            assert card.echo(2) == b"ba"


def test_all_queues_of_a_pair_come_back_and_a_reset_leaves_nothing() -> None:
    with vhost_card("tap=t0,vhost,mq=2") as card:
        card.driver.start()
        for index in (0, 1, 4):
            card.driver.reset_queue(index)
        for index in (1, 4, 0):
            card.driver.setup_queue(index)
        for index in (0, 1, 3):
            assert card.echo(index) == b"ba"
        assert command(card, 4, 4, 0, b"\x02\x00") == ACK_OK
        card.driver.reset_queue(0)
        card.driver.reset()
        assert card.nothing_is_left
        assert card.taps[0].attached


def test_queue_that_the_kernel_does_not_let_go_of_costs_the_driver_a_reset() -> None:
    with vhost_card() as card:
        card.driver.start()
        card.kernel.fail(errno.EBUSY, call="NET_SET_BACKEND")
        card.driver.registers.write("queue_select", 0)
        card.driver.registers.write("queue_reset", 1)
        assert card.driver.status & NEEDS_RESET
        card.driver.reset()
        assert card.nothing_is_left


def test_kernel_hears_of_no_feature_that_ends_at_the_registers() -> None:
    """ACCESS_PLATFORM above all: the kernel would ask for translations (VHOST_IOTLB) that nobody gives."""
    with vhost_card() as card:
        assert card.driver.start() & OFFERED_BY_PCI == OFFERED_BY_PCI
        assert card.kernel.features & ACCESS_PLATFORM
        assert not card.kernel.nodes[0].acked & OFFERED_BY_PCI
        assert card.echo(0) == b"ba"
