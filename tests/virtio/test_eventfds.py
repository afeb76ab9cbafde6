"""Call eventfds with a writer of its own (vhost, vhost-user), and the life of both kinds."""

import errno
import os
import threading
from collections.abc import Callable

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import signal
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.pci.eventfds import CallEvent, KickAddress, KickEvent
from acrn_dm.pci.msix import Msix
from tests.backends.user.user_rig import EVENTFD_FULL, jammed, returns

pytestmark = pytest.mark.both_formats

ENABLE = 0x8000
HERE = KickAddress(space=Space.MMIO, addr=0x1000, len=2)
THERE = KickAddress(space=Space.PIO, addr=0x2010, len=2, datamatch=1)


class Registry:
    """The hypervisor's, with something that happens right after an irqfd is unregistered."""

    def __init__(self, vm: SimVm) -> None:
        self.vm = vm
        self.after_unbind: Callable[[], object] = lambda: None

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        self.vm.ioeventfd(binding, assign)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        self.vm.irqfd(binding, assign)
        if not assign:
            self.after_unbind()


class Rig:
    """A call on vector 0 of a two-vector table, unmasked."""

    def __init__(self) -> None:
        self.vm = SimVm()
        self.msix = Msix(2)
        self.msix.connect(self.vm)
        self.lines = 0
        self.refusals: list[HostError] = []
        for vector in (0, 1):
            self.program(vector, vector)
        self.msix.set_control(ENABLE)
        self.registry = Registry(self.vm)
        self.call = CallEvent(self.registry, self.msix, self.line, self.refusals.append)
        self.call.set_vector(0)

    def line(self) -> None:
        self.lines += 1

    def program(self, vector: int, data: int) -> None:
        for offset, value in ((0, 0xFEE0_0000), (4, 0), (8, data), (12, 0)):
            self.msix.write(16 * vector + offset, 4, value)

    def mask(self, masked: bool) -> None:
        self.msix.write(12, 4, int(masked))

    def arrived(self) -> list[int]:
        return [m.data for m in self.vm.take_msis()]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_eventfd_written_from_outside_interrupts_while_bound(rig: Rig) -> None:
    os.eventfd_write(rig.call.fd, 1)
    assert rig.arrived() == [0]


def test_forward_keeps_an_outside_interrupt_pending_while_masked(rig: Rig) -> None:
    loop = IoLoop("io")
    rig.call.forward(loop)
    rig.mask(True)
    os.eventfd_write(rig.call.fd, 1)
    loop.run_until_idle()
    assert rig.arrived() == []
    assert rig.msix.pending_bits == 1
    rig.mask(False)
    assert rig.arrived() == [0]
    rig.call.close()
    loop.close()


def test_forward_passes_an_outside_interrupt_to_the_line_without_msix(rig: Rig) -> None:
    loop = IoLoop("io")
    rig.call.forward(loop)
    rig.msix.set_control(0)
    os.eventfd_write(rig.call.fd, 1)
    loop.run_until_idle()
    assert rig.lines == 1
    rig.call.close()
    loop.close()


def test_outside_write_in_the_gap_between_two_bindings_is_not_lost(rig: Rig) -> None:
    """The writer does not know that its eventfd is between two registrations."""
    loop = IoLoop("io")
    rig.call.forward(loop)
    rig.registry.after_unbind = lambda: os.eventfd_write(rig.call.fd, 1)
    rig.mask(True)
    rig.registry.after_unbind = lambda: None
    assert rig.msix.pending_bits == 1
    rig.mask(False)
    assert rig.arrived() == [0]
    rig.call.close()
    loop.close()


def test_count_that_a_hypervisor_left_behind_is_not_raised_again(rig: Rig) -> None:
    """ACRN's HSM delivers without taking the count."""
    rig.call.signal()
    rig.registry.after_unbind = lambda: os.eventfd_write(rig.call.fd, 1)
    rig.mask(True)
    assert rig.arrived() == [0]
    assert rig.msix.pending_bits == 0


def test_call_that_an_outside_writer_made_blocking_and_full_does_not_stop_us(rig: Rig) -> None:
    loop = IoLoop("io")
    rig.call.forward(loop)
    with jammed(rig.call.fd):
        assert returns(rig.call.signal)
    rig.call.close()
    loop.close()


def test_call_at_its_highest_count_that_a_hypervisor_leaves_alone_keeps_no_loop_busy(rig: Rig) -> None:
    """As ACRN's HSM does; only the kernel's own signal gets there, or a process that has it do so."""
    loop = IoLoop("io")
    rig.call.forward(loop)
    rig.mask(True)
    rig.registry.irqfd = lambda binding, assign: None  # type: ignore[method-assign]
    os.eventfd_write(rig.call.fd, EVENTFD_FULL)
    signal(rig.call.fd)
    rig.mask(False)  # epoll looks at the count when it is told to watch for something else
    assert loop.run_until_idle(limit=100) <= 1
    rig.call.close()
    loop.close()


def test_signals_from_many_threads_during_mask_changes_all_arrive_or_merge(rig: Rig) -> None:
    """Never lost: after the last unmask, at least one message later than the last signal."""

    def hammer() -> None:
        for _ in range(300):
            rig.call.signal()

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        rig.mask(True)
        rig.mask(False)
    for thread in threads:
        thread.join()
    assert rig.arrived()
    rig.mask(True)
    rig.call.signal()
    rig.mask(False)
    assert rig.arrived() == [0]


def test_refused_call_is_told_and_injected(rig: Rig) -> None:
    rig.vm.fail("irqfd", errno.EINVAL)
    rig.call.set_vector(1)
    rig.call.signal()
    assert rig.arrived() == [1]
    assert len(rig.refusals) == 1


def test_closed_call_signals_nothing_and_closes_twice(rig: Rig) -> None:
    rig.call.close()
    rig.call.signal()
    rig.call.set_vector(1)
    rig.mask(True)
    rig.mask(False)
    rig.call.close()
    assert rig.arrived() == []
    assert rig.vm.interrupts.bindings == []


def test_function_without_msix_always_takes_the_other_way() -> None:
    lines: list[int] = []
    call = CallEvent(SimVm(), None, lambda: lines.append(1), lambda e: None)
    call.set_vector(0)
    call.signal()
    call.close()
    assert lines == [1]


def test_kick_moves_with_its_address_and_is_bound_once() -> None:
    vm = SimVm()
    kick = KickEvent(vm, lambda e: None)
    for address in (HERE, HERE, THERE, None, HERE):
        kick.bind(address)
        assert [(b.space, b.addr) for b in vm.kicks.bindings] == ([(address.space, address.addr)] if address else [])
    assert [c.assign for c in vm.calls] == [True, False, True, False, True]
    kick.close()
    kick.close()
    assert vm.kicks.bindings == []


def test_kick_that_was_refused_is_not_tried_again_at_the_same_place() -> None:
    vm, refusals = SimVm(), []
    vm.fail("ioeventfd", errno.ENOSPC)
    kick = KickEvent(vm, refusals.append)
    kick.bind(HERE)
    kick.bind(HERE)
    assert len(refusals) == 1
    assert vm.kicks.bindings == []
    kick.signal()
    assert os.eventfd_read(kick.fd) == 1
    kick.bind(THERE)
    assert [b.addr for b in vm.kicks.bindings] == [THERE.addr]
    kick.close()


def test_unregistering_that_the_hypervisor_refuses_does_not_raise() -> None:
    vm = SimVm()
    kick = KickEvent(vm, lambda e: None)
    kick.bind(HERE)
    vm.fail("ioeventfd", errno.ENOENT)
    kick.close()
    assert kick.fd == -1
    vm.close()


def test_records_name_what_is_bound(rig: Rig) -> None:
    binding = rig.vm.interrupts.bindings[0]
    assert binding.target == MsiMessage(addr=0xFEE0_0000, data=0)
    assert not isinstance(binding.target, IntxLine)
