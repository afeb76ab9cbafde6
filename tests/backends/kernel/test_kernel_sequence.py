"""The exact calls of kernel vhost, the two hooks among them, and what is left when any of them fails."""

import errno

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.testing.driver import DRIVER_OK, NEEDS_RESET
from tests.backends.kernel.kernel_rig import NetKernel, VhostCard, descriptors, vhost_card


def ring(index: int) -> list[str]:
    return [
        f"SET_VRING_NUM {index} 1024",
        f"SET_VRING_BASE {index} 0",
        f"SET_VRING_ADDR {index}",
        f"SET_VRING_CALL {index}",
        f"SET_VRING_ERR {index}",
        f"SET_VRING_KICK {index}",
    ]


def taken(index: int) -> list[str]:
    return [f"SET_VRING_KICK {index} -1", f"SET_VRING_CALL {index} -1", f"SET_VRING_ERR {index} -1"]


PAIR = (0, 1)  # the control queue stays here, and adds an eventfd or two
START = [
    *["ioeventfd + mmio", "irqfd + msi"] * 2,
    *["SET_OWNER", "SET_FEATURES", "SET_MEM_TABLE", *ring(0), *ring(1)],
    *["NET_SET_BACKEND 0", "NET_SET_BACKEND 1"],
]
STOP = [
    *["ioeventfd - mmio"] * 2,
    *["NET_SET_BACKEND 0 -1", "NET_SET_BACKEND 1 -1", "GET_VRING_BASE 0", "GET_VRING_BASE 1", *taken(0), *taken(1)],
    "RESET_OWNER",
    *["irqfd - msi"] * 2,
]
KERNEL_START = [call for call in START if "fd " not in call]
KERNEL_STOP = [call for call in STOP if "fd " not in call]


def started(card: VhostCard) -> list[str]:
    """Start the driver; the calls."""
    card.driver.start(queues=PAIR)
    return card.kernel.take_log()


def test_node_that_does_not_tell_its_features_is_closed_again() -> None:
    kernel = NetKernel()
    kernel.fail(errno.EPERM, call="GET_FEATURES")
    with pytest.raises(HostError, match="GET_FEATURES"), vhost_card(kernel=kernel):
        pass
    assert kernel.log == ["open /dev/vhost-net", "GET_FEATURES", "close"]
    assert kernel.nodes == []


def test_start_is_kick_and_call_of_each_queue_owner_features_memory_rings_backends() -> None:
    with vhost_card() as card:
        assert started(card) == START


def test_reset_is_kicks_backends_bases_eventfds_owner_calls() -> None:
    with vhost_card() as card:
        started(card)
        card.driver.reset()
        assert card.kernel.take_log() == STOP
        assert card.nothing_is_left


def test_every_start_after_a_reset_is_the_same() -> None:
    with vhost_card() as card:
        for _ in range(3):
            assert started(card) == START
            assert card.echo() == b"ba"
            card.driver.reset()
            assert card.kernel.take_log() == STOP


def test_machine_reset_stops_and_close_closes() -> None:
    before = descriptors()
    kernel = NetKernel()
    with vhost_card(kernel=kernel) as card:
        started(card)
        card.machine.reset()
        assert card.kernel.take_log() == STOP
        assert card.nothing_is_left
    assert kernel.take_log() == ["close"]
    assert kernel.nodes == []
    assert descriptors() == before


def test_only_enabled_queues_are_told_and_run() -> None:
    with vhost_card() as card:
        card.driver.start(queues=[1])
        log = card.kernel.take_log()
        assert "SET_VRING_NUM 1 1024" in log
        assert not [call for call in log if call.startswith(("SET_VRING_NUM 0", "NET_SET_BACKEND 0"))]
        assert card.echo(1) == b"ba"


def test_device_without_an_enabled_queue_does_not_take_the_node() -> None:
    with vhost_card() as card:
        card.driver.start(queues=[])
        assert card.kernel.take_log() == []
        assert not card.kernel.nodes[0].owned


def test_legacy_driver_is_told_with_its_own_notify_port() -> None:
    with vhost_card() as card:
        legacy = card.machine.driver_legacy(3)
        card.kernel.take_log()
        legacy.start(queues=PAIR)
        log = card.kernel.take_log()
        assert log.count("ioeventfd + pio") == 2
        assert card.taps[0].settings[-1][0] == 12  # MRG_RXBUF is offered to it, too
        assert legacy.queue(1).transfer([b"ab"], [2]).data == b"ba"
        assert not card.kernel.nodes[0].acked & 1 << 27, "ANY_LAYOUT means something else to vhost-net"


@pytest.mark.parametrize("step", range(len(KERNEL_START)), ids=KERNEL_START)
def test_start_that_fails_anywhere_leaves_nothing_and_the_next_one_works(step: int) -> None:
    with vhost_card() as card:
        card.driver.start(queues=PAIR)  # so that everything that is made once is there
        card.driver.reset()
        before = descriptors()
        card.kernel.fail(errno.ENOMEM, call=KERNEL_START[step])
        card.driver.start(queues=PAIR)
        assert card.driver.status & (NEEDS_RESET | DRIVER_OK) == NEEDS_RESET | DRIVER_OK
        assert KERNEL_START[step] in str(card.machine.failures[-1][1])
        assert card.nothing_is_left
        assert descriptors() == before
        card.kernel.take_log()
        assert started(card) == START
        assert card.echo() == b"ba"


@pytest.mark.parametrize("step", range(len(KERNEL_STOP)), ids=KERNEL_STOP)
def test_stop_goes_on_whatever_fails_and_the_next_start_works(step: int) -> None:
    with vhost_card() as card:
        card.driver.start(queues=PAIR)
        card.driver.reset()
        before = descriptors()
        card.driver.start(queues=PAIR)
        card.kernel.take_log()
        card.kernel.fail(errno.EFAULT, call=KERNEL_STOP[step])
        card.driver.reset()
        calls = [call for call in card.kernel.take_log() if call in STOP]
        assert calls == STOP
        assert card.nothing_is_left
        assert descriptors() == before
        assert started(card) == START
        assert card.echo() == b"ba"


def test_driver_without_reset_owner_is_closed_and_opened_again() -> None:
    with vhost_card(kernel=NetKernel(resets_owner=False)) as card:
        for _ in range(2):
            assert started(card) == START
            card.driver.reset()
            log = card.kernel.take_log()
            owner = log.index("RESET_OWNER")
            assert log[owner + 1 : owner + 4] == ["close", "open /dev/vhost-net", "GET_FEATURES"]
            assert len(card.kernel.nodes) == 1


def test_node_that_can_not_be_opened_again_is_tried_at_the_next_start() -> None:
    with vhost_card(kernel=NetKernel(resets_owner=False)) as card:
        started(card)
        card.kernel.fail(errno.EMFILE, call="open")
        card.driver.reset()
        assert card.kernel.nodes == []
        card.kernel.fail(errno.EMFILE, call="open")
        card.driver.start(queues=PAIR)
        assert card.driver.status & NEEDS_RESET
        card.kernel.take_log()
        card.driver.start(queues=PAIR)
        assert card.kernel.take_log()[:5] == [*START[:4], "open /dev/vhost-net"]
        assert card.echo() == b"ba"


@pytest.mark.parametrize("hook", ["irqfd", "ioeventfd"])
@pytest.mark.parametrize("which", [0, 1])
def test_refused_registration_is_no_failure_and_the_ring_stays_the_kernels(hook: str, which: int) -> None:
    with vhost_card() as card:
        card.machine.vm.fail(hook, errno.ENOSPC, after=which)
        card.driver.start(queues=PAIR)
        assert not card.driver.status & NEEDS_RESET
        for queue in (0, 1):
            assert card.echo(queue) == b"ba"
            assert card.driver.queue_interrupts(queue) == 1
        assert all(pair.tx is pair.rx is None for pair in card.device.pairs), "nobody here processes the ring"
        card.driver.reset()
        assert card.nothing_is_left


def test_tap_that_refuses_the_offloads_fails_the_start_before_the_kernel_has_anything() -> None:
    with vhost_card() as card:
        card.taps[0].fail_next = errno.EINVAL
        card.driver.start(queues=PAIR)
        assert card.driver.status & NEEDS_RESET
        assert "SET_OWNER" not in card.kernel.take_log()
        assert started(card) == START
