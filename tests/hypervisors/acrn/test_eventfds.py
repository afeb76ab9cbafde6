"""Bindings on ACRN: what keeping them costs."""

from typing import cast

from acrn_dm.base.irq import IoEventFd, Space
from acrn_dm.hypervisors.acrn.eventfds import Bindings
from acrn_dm.hypervisors.acrn.module.abi import Port
from tests.work import instructions


class Agreeable:
    """A kernel module that takes everything."""

    def call(self, name: str, argument: int | bytearray = 0, *, may_sleep: bool = True) -> int:
        return 0

    attempt = call


def kick(n: int) -> IoEventFd:
    return IoEventFd(fd=100 + n, space=Space.MMIO, addr=0x8000_3000 + 4 * n, len=2)


def test_binding_and_unbinding_a_kick_cost_the_same_whatever_is_bound() -> None:
    bindings = Bindings(cast("Port", Agreeable()))

    def once() -> None:
        bindings.assign_kick(kick(0))
        bindings.deassign_kick(kick(0))

    alone = instructions(once)
    for n in range(1, 300):
        bindings.assign_kick(kick(n))
    assert instructions(once) <= 1.1 * alone
