"""What every hypervisor does when a machine is run, paused, reset, stopped and closed."""

import errno
import os
import threading

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IrqFd, MsiMessage, Space
from acrn_dm.contract.hypervisor import VmEvent
from tests.hypervisors.guest_program import (
    VECTORS,
    AwaitInterrupts,
    In,
    Out,
    RouteLine,
    Spin,
    TripleFault,
)
from tests.hypervisors.guests import PATIENCE_S, Guest
from tests.hypervisors.protocol.setting import (
    GSI,
    MSI,
    PORT,
    READY,
    EventFd,
    kick,
    signalled,
    wait_vectors,
)


def test_pause_waits_for_the_access_under_way(guest: Guest) -> None:
    inside, leave = threading.Event(), threading.Event()

    def device(access: tuple[object, ...]) -> None:
        if access == ("in", PORT, 1):
            inside.set()
            assert leave.wait(PATIENCE_S)

    guest.recorder.on_access = device
    guest.recorder.answers[PORT] = 0x77
    guest.start(In(PORT, 1), Out(PORT, 1, 9))
    driver = threading.Thread(target=guest.settle)  # a real guest runs by itself
    driver.start()
    assert inside.wait(PATIENCE_S)
    paused = threading.Event()
    pauser = threading.Thread(target=lambda: (guest.vm.pause(), paused.set()))
    pauser.start()
    assert not paused.wait(0.05)
    leave.set()
    pauser.join()
    driver.join()
    assert guest.recorder.accesses[:1] == [("in", PORT, 1)]


@pytest.mark.not_on("hsm", "a paused VM can only be reset")
def test_resume_goes_on_behind_the_access_that_was_under_way(guest: Guest) -> None:
    pausers = []

    def device(access: tuple[object, ...]) -> None:
        if access == ("in", PORT, 1):
            pausers.append(threading.Thread(target=guest.vm.pause))
            pausers[0].start()

    guest.recorder.on_access = device
    guest.recorder.answers[PORT] = 0x77
    guest.start(In(PORT, 1), Out(PORT, 1, 9))
    driver = threading.Thread(target=guest.settle)
    driver.start()
    guest.recorder.wait_for(lambda: bool(guest.recorder.accesses))
    pausers[0].join()
    driver.join()
    guest.vm.resume()
    assert guest.finish() == [("in", PORT, 1), ("out", PORT, 1, 9)]
    assert guest.results() == [0x77]


@pytest.mark.not_on("hsm", "a paused VM can only be reset")
def test_spinning_guest_can_be_paused_resumed_and_stopped(guest: Guest) -> None:
    guest.start(READY, Spin())
    guest.wait_access("out", READY.port, 1, 1)
    guest.vm.pause()
    guest.vm.pause()
    guest.vm.resume()
    guest.vm.resume()
    guest.vm.stop()
    guest.vm.stop()


def test_stop_before_run_and_close_twice_are_harmless(guest: Guest) -> None:
    guest.vm.stop()
    guest.vm.close()
    guest.vm.close()


@pytest.mark.parametrize("call", ["run", "reset", "set_boot_registers"])
def test_call_after_stop_is_refused(guest: Guest, call: str) -> None:
    guest.load(READY)
    guest.vm.stop()
    arguments = {"run": (guest.recorder,), "reset": (), "set_boot_registers": (object(),)}
    with pytest.raises(RuntimeError, match=f"{call}: the virtual machine is stopped"):
        getattr(guest.vm, call)(*arguments[call])


def test_run_twice_is_refused(guest: Guest) -> None:
    guest.start(Spin())
    with pytest.raises(RuntimeError, match="run: the virtual machine is running"):
        guest.vm.run(guest.recorder)


def test_life_cycle_call_on_a_vcpu_thread_is_refused(guest: Guest) -> None:
    refused = []

    def device(access: tuple[object, ...]) -> None:
        if access[:2] == ("out", PORT):
            for call in (guest.vm.pause, guest.vm.reset, guest.vm.stop, guest.vm.close):
                try:
                    call()
                except RuntimeError as e:
                    refused.append(str(e))

    guest.recorder.on_access = device
    guest.start(Out(PORT, 1, 1))
    guest.finish()
    assert [text.split()[0] for text in refused] == ["pause", "reset", "stop", "close"]


def test_guest_runs_again_after_each_reset(guest: Guest) -> None:
    for turn in range(3):
        guest.recorder.accesses.clear()
        guest.start(Out(PORT, 1, turn))
        assert guest.finish() == [("out", PORT, 1, turn)]
        guest.vm.reset()


def test_reset_of_a_running_guest_takes_bindings_and_levels_away(guest: Guest, eventfd: EventFd) -> None:
    kick_fd, call_fd = eventfd(), eventfd()
    guest.vm.ioeventfd(kick(kick_fd, Space.PIO, PORT, 2), True)
    guest.vm.irqfd(IrqFd(fd=call_fd, target=MSI), True)
    guest.start(READY, Spin())
    guest.wait_access("out", READY.port, 1, 1)
    guest.vm.set_irq_line(GSI, True)
    guest.vm.reset()
    guest.recorder.accesses.clear()
    guest.start(RouteLine(GSI, VECTORS[0]), Out(PORT, 2, 1), READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(call_fd, 1)
    guest.vm.inject_msi(MsiMessage(addr=MSI.addr, data=VECTORS[1]))
    wait_vectors(guest, VECTORS[1])
    assert ("out", PORT, 2, 1) in guest.recorder.accesses
    assert (signalled(kick_fd), signalled(call_fd)) == (False, True)
    guest.vm.irqfd(IrqFd(fd=call_fd, target=MSI), True)  # may be bound again


def test_binding_made_before_reset_is_unknown_afterwards(guest: Guest, eventfd: EventFd) -> None:
    made, call = kick(eventfd(), Space.PIO, PORT, 2), IrqFd(fd=eventfd(), target=MSI)
    guest.vm.ioeventfd(made, True)
    guest.vm.irqfd(call, True)
    guest.vm.reset()
    for unregister in (lambda: guest.vm.ioeventfd(made, False), lambda: guest.vm.irqfd(call, False)):
        with pytest.raises(HostError) as caught:
            unregister()
        assert caught.value.err == errno.ENOENT


def test_triple_fault_is_an_event_and_the_machine_can_be_reset(guest: Guest) -> None:
    guest.start(TripleFault())
    guest.wait_for(lambda: bool(guest.recorder.events))
    assert [event for event, _ in guest.recorder.events] == [VmEvent.TRIPLE_FAULT]
    guest.vm.reset()
    guest.recorder.accesses.clear()  # ACRN's hypervisor has asked to be powered off, by a write of its own
    guest.start(Out(PORT, 1, 1))
    assert guest.finish() == [("out", PORT, 1, 1)]


@pytest.mark.not_on("hsm", "a paused VM can only be reset")
def test_ended_vcpu_does_not_run_on_after_pause_and_resume(guest: Guest) -> None:
    guest.start(TripleFault())
    guest.wait_for(lambda: bool(guest.recorder.events))
    guest.vm.pause()
    guest.vm.resume()
    guest.settle()
    guest.vm.stop()
    assert len(guest.recorder.events) == 1


def test_interrupts_after_close_vanish(guest: Guest) -> None:
    guest.vm.close()
    guest.vm.inject_msi(MSI)
    guest.vm.set_irq_line(GSI, True)


def test_binding_after_close_is_refused(guest: Guest, eventfd: EventFd) -> None:
    guest.vm.close()
    with pytest.raises((HostError, RuntimeError)):
        guest.vm.ioeventfd(kick(eventfd(), Space.PIO, PORT, 2), True)
