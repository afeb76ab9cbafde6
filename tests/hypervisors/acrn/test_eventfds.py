"""Bindings on ACRN: the rules that its module keeps and KVM does not, and what keeping them costs."""

import errno
import os
from collections.abc import Callable
from typing import cast

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import drain
from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.hypervisors.acrn.eventfds import Bindings
from acrn_dm.hypervisors.acrn.module.abi import Port
from tests.hypervisors.acrn.hsm_rig import Rig, arguments, rig
from tests.work import instructions

MESSAGE = MsiMessage(addr=0xFEE0_0000, data=0x41)
EventFd = Callable[[], int]


def kick(fd: int, addr: int, length: int = 2, match: int | None = None, space: Space = Space.PIO) -> IoEventFd:
    return IoEventFd(fd=fd, space=space, addr=addr, len=length, datamatch=match)


# Linux's module


def test_kick_is_bound_by_exact_fields(eventfd: EventFd) -> None:
    with rig() as r:
        fd = eventfd()
        r.vm.ioeventfd(kick(fd, 0x2010, 2, 3), True)
        r.vm.ioeventfd(kick(fd, 0x8000_3000, 2, None, Space.MMIO), True)
        r.vm.ioeventfd(kick(fd, 0x2010, 2, 3), False)
        assert arguments(r.hsm, "IOEVENTFD")[:2] == [
            (fd, 3, 0x2010, 2, 0, 3),  # PIO and DATAMATCH
            (fd, 0, 0x8000_3000, 2, 0, 0),
        ]


def test_claimed_address_reads_0_and_swallows_other_values(eventfd: EventFd) -> None:
    with rig() as r:
        r.boot()
        fd = eventfd()
        r.vm.ioeventfd(kick(fd, 0x2010, 2, 3), True)
        r.hsm.vm.pio_write(0x2010, 2, 4)
        assert r.hsm.vm.pio_read(0x2010, 2) == 0
        assert drain(fd) == 0
        r.hsm.vm.pio_write(0x2010, 2, 3)
        assert drain(fd) == 1
        r.hsm.vm.pio_write(0x2010, 4, 3)  # longer than the range: not claimed
        assert r.dispatch.accesses == [("out", 0x2010, 4, 3)]


def test_unregistering_one_kick_of_an_eventfd_keeps_the_others(eventfd: EventFd) -> None:
    """The module would remove the one that was registered first."""
    with rig() as r:
        r.boot()
        fd = eventfd()
        first, second = kick(fd, 0x2010, 2, 0), kick(fd, 0x2110, 2, 0)
        r.vm.ioeventfd(first, True)
        r.vm.ioeventfd(second, True)
        r.vm.ioeventfd(second, False)
        r.hsm.vm.pio_write(0x2010, 2, 0)
        r.hsm.vm.pio_write(0x2110, 2, 0)
        assert drain(fd) == 1
        assert r.dispatch.accesses == [("out", 0x2110, 2, 0)]
        r.vm.ioeventfd(first, False)
        assert r.hsm.vm.kicks == []


def test_bindings_are_taken_away_by_a_reset_in_place(eventfd: EventFd) -> None:
    with rig() as r:
        r.boot()
        r.vm.ioeventfd(kick(eventfd(), 0x2010), True)
        r.vm.irqfd(IrqFd(fd=eventfd(), target=MESSAGE), True)
        r.forget()
        r.vm.reset()
        assert r.sequence() == ["PAUSE_VM", "CLEAR_VM_IOREQ", "IOEVENTFD", "IRQFD", "RESET_VM"]
        assert (r.hsm.vm.kicks, r.hsm.vm.calls) == ([], {})


def test_call_to_a_line_is_refused(eventfd: EventFd) -> None:
    with rig() as r:
        with pytest.raises(HostError) as caught:
            r.vm.irqfd(IrqFd(fd=eventfd(), target=IntxLine(gsi=17)), True)
        assert caught.value.err == errno.EINVAL
        assert "not to a line" in str(caught.value)


def test_interrupts_by_eventfd_are_delivered_each_time_and_the_count_stays(eventfd: EventFd) -> None:
    with rig() as r:
        fd = eventfd()
        r.vm.irqfd(IrqFd(fd=fd, target=MESSAGE), True)
        for wanted in range(1, 4):
            os.eventfd_write(fd, 1)
            with r.hsm.changed:
                assert r.hsm.changed.wait_for(lambda wanted=wanted: len(r.hsm.vm.msis) == wanted, 10)
        assert drain(fd) == 3


# Asynchronous kicks of ACRN's own kernel


def flags_of_kicks(r: Rig) -> list[int]:
    return [argument[1] for argument in arguments(r.hsm, "IOEVENTFD")]


def test_kicks_are_asynchronous_where_any_write_kicks(eventfd: EventFd) -> None:
    with rig(acrn_kernel=True) as r:
        modern, legacy = kick(eventfd(), 0x8000_3000, 2, None, Space.MMIO), kick(eventfd(), 0x2010, 2, 1)
        for binding in (modern, legacy):
            r.vm.ioeventfd(binding, True)
            r.vm.ioeventfd(binding, False)
        assert flags_of_kicks(r) == [8, 8 | 4, 3, 3 | 4]


@pytest.mark.parametrize("err", [errno.ENODEV, errno.ENOSPC, errno.EINVAL, errno.EPERM])
def test_kick_that_cannot_be_asynchronous_is_an_ordinary_one(eventfd: EventFd, err: int) -> None:
    with rig(acrn_kernel=True) as r:
        r.hsm.fail("IOEVENTFD", err)
        binding = kick(eventfd(), 0x8000_3000, 2, None, Space.MMIO)
        r.vm.ioeventfd(binding, True)
        r.vm.ioeventfd(binding, False)
        assert flags_of_kicks(r) == [8, 0, 4]


def modern_kick(n: int, eventfd: EventFd) -> IoEventFd:
    return kick(eventfd(), 0x8000_3000 + 4 * n, 2, None, Space.MMIO)


def test_kick_past_what_the_hypervisor_has_room_for_is_an_ordinary_one_and_says_so(
    eventfd: EventFd, caplog: pytest.LogCaptureFixture
) -> None:
    with rig(acrn_kernel=True) as r:
        for n in range(67):
            r.vm.ioeventfd(modern_kick(n, eventfd), True)
        assert flags_of_kicks(r) == [8] * 64 + [0] * 3
        assert r.hsm.violations == []
    said = [m for m in caplog.messages if "asynchronous kicks are all in use" in m]
    assert len(said) == 1
    assert "0x80003100" in said[0]


def test_place_of_an_asynchronous_kick_that_leaves_is_used_again(eventfd: EventFd) -> None:
    with rig(acrn_kernel=True) as r:
        kicks = [modern_kick(n, eventfd) for n in range(66)]
        for binding in kicks[:65]:
            r.vm.ioeventfd(binding, True)
        r.vm.ioeventfd(kicks[0], False)
        r.vm.ioeventfd(kicks[65], True)
        assert flags_of_kicks(r)[-2:] == [8 | 4, 8]


def test_asynchronous_kicks_count_anew_after_a_reset(eventfd: EventFd) -> None:
    with rig(acrn_kernel=True) as r:
        r.boot()
        for _ in range(2):
            for n in range(64):
                r.vm.ioeventfd(modern_kick(n, eventfd), True)
            r.vm.pause()
            r.vm.reset()
        assert set(flags_of_kicks(r)) == {8, 8 | 4}
        assert r.hsm.violations == []


# What it costs


class Agreeable:
    """A kernel module that takes everything."""

    def call(self, name: str, argument: int | bytearray = 0, *, may_sleep: bool = True) -> int:
        return 0

    attempt = call


def kick_number(n: int) -> IoEventFd:
    return kick(100 + n, 0x8000_3000 + 4 * n, space=Space.MMIO)


def test_binding_and_unbinding_a_kick_cost_the_same_whatever_is_bound() -> None:
    bindings = Bindings(cast("Port", Agreeable()))

    def once() -> None:
        bindings.assign_kick(kick_number(0))
        bindings.deassign_kick(kick_number(0))

    alone = instructions(once)
    for n in range(1, 300):
        bindings.assign_kick(kick_number(n))
    assert instructions(once) <= 1.1 * alone
