"""What every hypervisor does with kicks, which are writes that signal an eventfd."""

import errno
import os

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import Space
from tests.hypervisors.guest_program import (
    In,
    Out,
    Step,
    Store,
)
from tests.hypervisors.guests import Guest
from tests.hypervisors.protocol.setting import (
    PORT,
    WINDOW,
    EventFd,
    kick,
    signalled,
)


@pytest.mark.parametrize(
    ("space", "addr", "step"),
    [(Space.PIO, PORT, Out(PORT, 2, 7)), (Space.MMIO, WINDOW, Store(WINDOW, 2, 7))],
    ids=["pio", "mmio"],
)
def test_claimed_write_signals_and_does_not_reach_dispatch(
    guest: Guest, eventfd: EventFd, space: Space, addr: int, step: Step
) -> None:
    fd = eventfd()
    guest.vm.ioeventfd(kick(fd, space, addr, 2), True)
    guest.start(step)
    assert guest.finish() == []
    assert signalled(fd)


@pytest.mark.not_on("hsm", "its module swallows writes of other values to a claimed address")
def test_kick_with_datamatch_takes_only_its_value(guest: Guest, eventfd: EventFd) -> None:
    first, second = eventfd(), eventfd()
    guest.vm.ioeventfd(kick(first, Space.PIO, PORT, 2, datamatch=1), True)
    guest.vm.ioeventfd(kick(second, Space.PIO, PORT, 2, datamatch=2), True)
    guest.start(Out(PORT, 2, 2), Out(PORT, 2, 3))
    assert guest.finish() == [("out", PORT, 2, 3)]
    assert (signalled(first), signalled(second)) == (False, True)


def test_kick_of_another_length_reaches_dispatch(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    guest.vm.ioeventfd(kick(fd, Space.MMIO, WINDOW, 2), True)
    guest.start(Store(WINDOW, 4, 1))
    assert guest.finish() == [("store", WINDOW, 4, 1)]
    assert not signalled(fd)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_kick_of_length_0_takes_every_length(guest: Guest, eventfd: EventFd, size: int) -> None:
    fd = eventfd()
    guest.vm.ioeventfd(kick(fd, Space.MMIO, WINDOW, 0), True)
    guest.start(Store(WINDOW, size, 1))
    assert guest.finish() == []
    assert signalled(fd)


@pytest.mark.not_on("hsm", "its module claims reads, too, and answers 0")
def test_read_of_claimed_address_reaches_dispatch(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    guest.vm.ioeventfd(kick(fd, Space.PIO, PORT, 2), True)
    guest.start(In(PORT, 2))
    assert guest.finish() == [("in", PORT, 2)]
    assert not signalled(fd)


def test_kick_unregistered_dispatches_again(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    guest.vm.ioeventfd(kick(fd, Space.PIO, PORT, 2), True)
    guest.vm.ioeventfd(kick(fd, Space.PIO, PORT, 2), False)
    guest.start(Out(PORT, 2, 5))
    assert guest.finish() == [("out", PORT, 2, 5)]
    assert not signalled(fd)


@pytest.mark.parametrize(
    ("first", "second"), [(None, None), (None, 3), (3, 3)], ids=["same", "match under any", "same match"]
)
def test_second_kick_at_the_same_place_is_eexist(
    guest: Guest, eventfd: EventFd, first: int | None, second: int | None
) -> None:
    guest.vm.ioeventfd(kick(eventfd(), Space.PIO, PORT, 2, first), True)
    with pytest.raises(HostError) as caught:
        guest.vm.ioeventfd(kick(eventfd(), Space.PIO, PORT, 2, second), True)
    assert caught.value.err == errno.EEXIST


def test_unregistering_kick_with_another_match_is_enoent_and_keeps_it(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    guest.vm.ioeventfd(kick(fd, Space.PIO, PORT, 2, datamatch=1), True)
    with pytest.raises(HostError) as caught:
        guest.vm.ioeventfd(kick(fd, Space.PIO, PORT, 2, datamatch=2), False)
    assert caught.value.err == errno.ENOENT
    guest.start(Out(PORT, 2, 1))
    assert guest.finish() == []


@pytest.mark.parametrize(("length", "match"), [(3, None), (0, 1)], ids=["length 3", "match without length"])
def test_malformed_kick_is_einval(guest: Guest, eventfd: EventFd, length: int, match: int | None) -> None:
    with pytest.raises(HostError) as caught:
        guest.vm.ioeventfd(kick(eventfd(), Space.MMIO, WINDOW, length, match), True)
    assert caught.value.err == errno.EINVAL


def test_kick_on_what_is_no_eventfd_is_einval(guest: Guest) -> None:
    with open("/dev/null") as file, pytest.raises(HostError) as caught:
        guest.vm.ioeventfd(kick(file.fileno(), Space.PIO, PORT, 2), True)
    assert caught.value.err == errno.EINVAL


def test_unregistering_kick_after_closing_its_fd_is_ebadf(guest: Guest) -> None:
    fd = os.eventfd(0)
    guest.vm.ioeventfd(kick(fd, Space.PIO, PORT, 2), True)
    os.close(fd)
    with pytest.raises(HostError) as caught:
        guest.vm.ioeventfd(kick(fd, Space.PIO, PORT, 2), False)
    assert caught.value.err == errno.EBADF
