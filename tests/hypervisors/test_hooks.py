"""Exits and eventfds of a running guest, bound through the plugin host's two hooks as the machine does it.

Against the simulation, and as programs of a few bytes on KVM where it opens.
"""

import os
import select
from collections.abc import Iterator
from typing import Any

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.eventfd_hooks import EventFdHooks
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.pci.eventfds import CallEvent, KickAddress, KickEvent
from acrn_dm.pci.msix import Msix
from tests.hypervisors.guest_program import VECTOR_PORT, VECTORS, AwaitInterrupts, Load, Out, Store
from tests.hypervisors.guests import PATIENCE_S, Guest

PORT, WINDOW = 0x500, 0xD000_0000
READY = Out(0x5FF, 1, 1)
APIC_0 = 0xFEE0_0000


class Tracer:
    """A third party's plugin: writes down what is bound, vetoes what it is told to, and leaves the rest to others."""

    __name__ = "tracer"

    def __init__(self) -> None:
        self.seen: list[tuple[object, bool]] = []
        self.veto = False

    @hookimpl(tryfirst=True)
    def acrn_dm_vhm_ioeventfd(self, binding: IoEventFd, assign: bool) -> bool | None:
        self.seen.append((binding, assign))
        return False if self.veto else None

    @hookimpl(tryfirst=True)
    def acrn_dm_vhm_irqfd(self, binding: IrqFd, assign: bool) -> bool | None:
        self.seen.append((binding, assign))
        return False if self.veto else None


@pytest.fixture
def tracer() -> Tracer:
    return Tracer()


@pytest.fixture
def hooks(guest: Guest, tracer: Tracer) -> EventFdHooks:
    return EventFdHooks(make_plugin_manager(entry_points=False, extra=[tracer]), guest.vm)


@pytest.fixture
def fds() -> Iterator[tuple[int, int]]:
    made = tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
    yield made[0], made[1]
    for fd in made:
        os.close(fd)


def signalled(fd: int) -> bool:
    if not select.select([fd], [], [], 0)[0]:
        return False
    os.eventfd_read(fd)
    return True


def wait_vector(guest: Guest, vector: int) -> None:
    guest.wait_for(lambda: ("out", VECTOR_PORT, 1, vector) in guest.recorder.accesses)


def test_accesses_that_nothing_claims_exit_to_dispatch(guest: Guest, hooks: EventFdHooks, fds: tuple[int, int]) -> None:
    hooks.ioeventfd(IoEventFd(fd=fds[0], space=Space.PIO, addr=PORT + 8, len=2), True)
    hooks.ioeventfd(IoEventFd(fd=fds[1], space=Space.MMIO, addr=WINDOW + 8, len=4), True)
    guest.recorder.answers[WINDOW] = 0x1234
    guest.start(Out(PORT, 2, 7), Store(WINDOW, 4, 9), Load(WINDOW, 4))
    assert guest.finish() == [("out", PORT, 2, 7), ("store", WINDOW, 4, 9), ("load", WINDOW, 4)]
    assert guest.results() == [0x1234]
    assert not signalled(fds[0])
    assert not signalled(fds[1])


@pytest.mark.parametrize("space", list(Space))
def test_kick_without_datamatch_is_taken_and_given_back(
    guest: Guest, hooks: EventFdHooks, tracer: Tracer, fds: tuple[int, int], space: Space
) -> None:
    addr = PORT if space is Space.PIO else WINDOW
    step = Out(PORT, 2, 7) if space is Space.PIO else Store(WINDOW, 2, 7)
    binding = IoEventFd(fd=fds[0], space=space, addr=addr, len=2)
    hooks.ioeventfd(binding, True)
    guest.start(step)
    assert guest.finish() == []
    assert signalled(fds[0])
    hooks.ioeventfd(binding, False)
    assert tracer.seen == [(binding, True), (binding, False)]


@pytest.mark.not_on("hsm", "its module swallows writes of other values to a claimed address")
@pytest.mark.parametrize("space", list(Space))
def test_kick_with_datamatch_takes_its_value_only(
    guest: Guest, hooks: EventFdHooks, fds: tuple[int, int], space: Space
) -> None:
    addr = PORT if space is Space.PIO else WINDOW
    for value, fd in enumerate(fds):
        hooks.ioeventfd(IoEventFd(fd=fd, space=space, addr=addr, len=2, datamatch=value), True)
    steps = [Out(PORT, 2, n) if space is Space.PIO else Store(WINDOW, 2, n) for n in (1, 2)]
    guest.start(*steps)
    kind = "out" if space is Space.PIO else "store"
    assert guest.finish() == [(kind, addr, 2, 2)]
    assert [signalled(fd) for fd in fds] == [False, True]


def test_msi_arrives_by_irqfd_and_by_injection(guest: Guest, hooks: EventFdHooks, fds: tuple[int, int]) -> None:
    hooks.irqfd(IrqFd(fd=fds[0], target=MsiMessage(addr=APIC_0, data=VECTORS[0])), True)
    guest.start(READY, AwaitInterrupts(2))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(fds[0], 1)
    wait_vector(guest, VECTORS[0])
    guest.vm.inject_msi(MsiMessage(addr=APIC_0, data=VECTORS[1]))
    wait_vector(guest, VECTORS[1])
    guest.finish()


def test_binding_that_a_plugin_vetoes_is_a_host_error_and_is_not_made(
    guest: Guest, hooks: EventFdHooks, tracer: Tracer, fds: tuple[int, int]
) -> None:
    tracer.veto = True
    with pytest.raises(HostError, match="vetoed"):
        hooks.ioeventfd(IoEventFd(fd=fds[0], space=Space.PIO, addr=PORT, len=2), True)
    with pytest.raises(HostError, match="vetoed"):
        hooks.irqfd(IrqFd(fd=fds[0], target=MsiMessage(addr=APIC_0, data=VECTORS[0])), True)
    guest.start(Out(PORT, 2, 7))
    assert guest.finish() == [("out", PORT, 2, 7)]


def test_virtqueues_kick_and_call_go_round_a_running_guest(guest: Guest, hooks: EventFdHooks, tracer: Tracer) -> None:
    """What a queue has: a kick at a notify register, a call on an MSI-X vector; masked, the call is injected later."""
    refused: list[Any] = []
    msix = Msix(1)
    msix.connect(guest.vm)
    for offset, value in ((0, APIC_0), (8, VECTORS[2]), (12, 0)):
        msix.write(offset, 4, value)
    msix.set_control(0x8000)
    kick = KickEvent(hooks, refused.append)
    call = CallEvent(hooks, msix, lambda: None, refused.append)
    call.set_vector(0)
    kick.bind(KickAddress(space=Space.MMIO, addr=WINDOW, len=2))
    try:
        guest.start(Store(WINDOW, 2, 0), READY, AwaitInterrupts(2))
        guest.wait_access("out", READY.port, 1, 1)
        assert select.select([kick.fd], [], [], PATIENCE_S)[0]
        call.signal()  # through the irqfd
        guest.wait_for(lambda: guest.recorder.accesses.count(("out", VECTOR_PORT, 1, VECTORS[2])) == 1)
        msix.write(12, 4, 1)
        call.signal()  # pending
        msix.write(12, 4, 0)  # injected
        guest.wait_for(lambda: guest.recorder.accesses.count(("out", VECTOR_PORT, 1, VECTORS[2])) == 2)
        guest.finish()
    finally:
        kick.close()
        call.close()
    assert refused == []
    assert [type(binding).__name__ for binding, assign in tracer.seen if assign] == ["IrqFd", "IoEventFd", "IrqFd"]
    assert sum(assign for _, assign in tracer.seen) == sum(not assign for _, assign in tracer.seen)
