"""What only the simulation has: the record of what happened, failures on demand, and the caller as processor."""

import errno
import os
from collections.abc import Iterator

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.lifecycle import State
from acrn_dm.hypervisors.sim import plugin as sim
from acrn_dm.hypervisors.sim.irq import LineChange
from acrn_dm.hypervisors.sim.vm import Call, SimVm
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from tests.hypervisors.guests import Recorder

A, B = MsiMessage(addr=0xFEE0_0000, data=0x40), MsiMessage(addr=0xFEE0_0000, data=0x41)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def vm(recorder: Recorder) -> Iterator[SimVm]:
    made = SimVm()
    made.run(recorder)
    yield made
    made.close()


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.eventfd(0, os.EFD_CLOEXEC)  # blocking, as a vhost user may have made it
    yield made
    os.close(made)


# The caller as processor


@pytest.mark.parametrize("before", ["run", "pause", "stop"])
def test_access_of_a_machine_at_rest_is_refused(recorder: Recorder, before: str) -> None:
    machine = SimVm()
    if before != "run":
        machine.run(recorder)
        getattr(machine, before)()
    with pytest.raises(RuntimeError, match="an access of the guest: the virtual machine is"):
        machine.pio_read(0x60, 1)
    assert recorder.accesses == []


@pytest.mark.parametrize(("size", "port"), [(8, 0), (3, 0), (1, 0x1_0000), (2, 0xFFFF), (1, -1)])
def test_access_no_processor_makes_is_refused(vm: SimVm, size: int, port: int) -> None:
    with pytest.raises(ValueError, match="no processor makes"):
        vm.pio_write(port, size, 0)


def test_values_are_cut_to_the_size_of_the_access(vm: SimVm, recorder: Recorder) -> None:
    recorder.answers[0x60] = 0x1FF
    vm.pio_write(0x60, 1, 0x1FF)
    assert recorder.accesses == [("out", 0x60, 1, 0xFF)]
    assert vm.pio_read(0x60, 1) == 0xFF


def test_ram_wins_over_a_kick_at_the_same_address(vm: SimVm, fd: int) -> None:
    memory = GuestMemory.allocate([MemoryRange(gpa=0, size=0x1000)])
    vm.map_memory(memory.regions[0])
    vm.ioeventfd(IoEventFd(fd=fd, space=Space.MMIO, addr=0x10, len=4), True)
    vm.mmio_write(0x10, 4, 7)
    assert memory.read(0x10, 4) == b"\x07\0\0\0"
    vm.close()
    memory.close()


def test_misaligned_region_is_einval(vm: SimVm) -> None:
    memory = GuestMemory.allocate([MemoryRange(gpa=0x800, size=0x1000)])
    with pytest.raises(HostError) as caught:
        vm.map_memory(memory.regions[0])
    assert caught.value.err == errno.EINVAL
    memory.close()


def test_vcpu_that_ends_is_told_to_dispatch(vm: SimVm, recorder: Recorder) -> None:
    vm.vcpu_ends(VmEvent.INTERNAL_ERROR, "why")
    assert recorder.events == [(VmEvent.INTERNAL_ERROR, "why")]


# The record


def test_calls_are_kept_in_order(fd: int, recorder: Recorder) -> None:
    vm = SimVm()
    binding = IoEventFd(fd=fd, space=Space.PIO, addr=0x60, len=1)
    vm.run(recorder)
    vm.ioeventfd(binding, True)
    vm.inject_msi(A)
    vm.ioeventfd(binding, False)
    vm.close()
    assert vm.calls == [
        Call(name="run"),
        Call(name="ioeventfd", argument=binding, assign=True),
        Call(name="inject_msi", argument=A),
        Call(name="ioeventfd", argument=binding, assign=False),
        Call(name="close"),
    ]


def test_bindings_in_force_are_listed(vm: SimVm, fd: int) -> None:
    kick = IoEventFd(fd=fd, space=Space.PIO, addr=0x60, len=1)
    call = IrqFd(fd=fd, target=A)
    vm.ioeventfd(kick, True)
    vm.irqfd(call, True)
    assert (vm.kicks.bindings, vm.interrupts.bindings) == ([kick], [call])
    vm.reset()
    assert (vm.kicks.bindings, vm.interrupts.bindings) == ([], [])


# Interrupts


def test_msis_are_taken_once_in_order_and_kept_for_the_record(vm: SimVm, fd: int) -> None:
    vm.irqfd(IrqFd(fd=fd, target=B), True)
    vm.inject_msi(A)
    os.eventfd_write(fd, 1)
    assert vm.take_msis() == [A, B]
    assert vm.take_msis() == []
    assert vm.msis == [A, B]


def test_signals_before_a_look_are_one_interrupt(vm: SimVm, fd: int) -> None:
    vm.irqfd(IrqFd(fd=fd, target=A), True)
    os.eventfd_write(fd, 1)
    os.eventfd_write(fd, 1)
    assert vm.take_msis() == [A]


def test_signal_before_unregistering_is_delivered(vm: SimVm, fd: int) -> None:
    vm.irqfd(IrqFd(fd=fd, target=A), True)
    os.eventfd_write(fd, 1)
    vm.irqfd(IrqFd(fd=fd, target=A), False)
    assert vm.take_msis() == [A]


def test_line_changes_are_recorded_and_repeats_are_not(vm: SimVm) -> None:
    for asserted in (True, True, False, False):
        vm.set_irq_line(17, asserted)
    assert vm.interrupts.changes == [LineChange(gsi=17, asserted=True), LineChange(gsi=17, asserted=False)]


def test_resample_irqfd_holds_the_line_to_the_eoi(vm: SimVm, fd: int) -> None:
    resample = os.eventfd(0, os.EFD_NONBLOCK)
    vm.irqfd(IrqFd(fd=fd, target=IntxLine(gsi=17), resample_fd=resample), True)
    os.eventfd_write(fd, 1)
    assert vm.line(17)
    vm.eoi(17)
    assert not vm.line(17)
    assert os.eventfd_read(resample) == 1
    os.close(resample)


def test_eoi_does_not_lower_a_line_that_a_device_holds(vm: SimVm) -> None:
    vm.set_irq_line(17, True)
    vm.eoi(17)
    assert vm.line(17)


def test_unregistering_the_resample_irqfd_lowers_its_line(vm: SimVm, fd: int) -> None:
    resample = os.eventfd(0)
    binding = IrqFd(fd=fd, target=IntxLine(gsi=17), resample_fd=resample)
    vm.irqfd(binding, True)
    os.eventfd_write(fd, 1)
    assert vm.line(17)
    vm.irqfd(binding, False)
    assert not vm.line(17)
    os.close(resample)


def test_bad_resample_fd_leaves_nothing_behind(vm: SimVm, fd: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError):
        vm.irqfd(IrqFd(fd=fd, target=IntxLine(gsi=17), resample_fd=-1), True)
    assert len(os.listdir("/proc/self/fd")) == before
    assert vm.interrupts.bindings == []


# Failures on demand


def test_next_call_fails_once_with_the_errno_asked_for(vm: SimVm) -> None:
    vm.fail("inject_msi", errno.ENOMEM)
    with pytest.raises(HostError) as caught:
        vm.inject_msi(A)
    assert caught.value.err == errno.ENOMEM
    vm.inject_msi(B)
    assert vm.take_msis() == [B]


def test_call_fails_after_so_many_others(vm: SimVm) -> None:
    vm.fail("set_irq_line", errno.EIO, after=2)
    vm.set_irq_line(17, True)
    vm.set_irq_line(18, True)
    with pytest.raises(HostError):
        vm.set_irq_line(19, True)
    assert [vm.line(gsi) for gsi in (17, 18, 19)] == [True, True, False]


# Giving back


def test_close_gives_every_descriptor_back(recorder: Recorder, fd: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    vm = SimVm()
    vm.run(recorder)
    vm.ioeventfd(IoEventFd(fd=fd, space=Space.PIO, addr=0x60, len=1), True)
    vm.irqfd(IrqFd(fd=fd, target=A), True)
    vm.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert vm.state is State.CLOSED


# Hooks


def test_type_offered_is_never_chosen_automatically() -> None:
    (offered,) = sim.acrn_dm_hypervisor_types()
    assert (offered.name, offered.probe()) == ("sim", None)
    assert offered.rank < 0
    assert offered.open(HypervisorOptions(name="web", vcpus=2)).vcpus == 2


def test_hooks_serve_their_own_machine_only(vm: SimVm, fd: int) -> None:
    kick = IoEventFd(fd=fd, space=Space.PIO, addr=0x60, len=1)
    call = IrqFd(fd=fd, target=A)
    assert sim.acrn_dm_vhm_ioeventfd(object(), kick, True) is None
    assert sim.acrn_dm_vhm_irqfd(object(), call, True) is None
    for assign in (True, False):
        assert sim.acrn_dm_vhm_ioeventfd(vm, kick, assign) is True
        assert sim.acrn_dm_vhm_irqfd(vm, call, assign) is True
