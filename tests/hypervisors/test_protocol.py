"""What every hypervisor does; see ``base``. Run against the simulation, and against KVM where it opens."""

import errno
import os
import select
import threading
from collections.abc import Callable, Iterator

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from tests.hypervisors.guest_program import (
    VECTOR_PORT,
    VECTORS,
    AwaitInterrupts,
    In,
    Load,
    Out,
    OutString,
    RouteLine,
    Spin,
    Step,
    Store,
    TripleFault,
)
from tests.hypervisors.guests import PATIENCE_S, Guest

PORT = 0x500
WINDOW = 0xD000_0000
READY = Out(0x5FF, 1, 1)
GSI = 17
MSI = MsiMessage(addr=0xFEE0_0000, data=VECTORS[0])  # APIC 0, fixed delivery, edge

EventFd = Callable[[], int]


@pytest.fixture
def eventfd() -> Iterator[EventFd]:
    made: list[int] = []

    def make() -> int:
        made.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


def signalled(fd: int, patience: float = 0) -> bool:
    """Read the eventfd; was it signalled?"""
    if not select.select([fd], [], [], patience)[0]:
        return False
    os.eventfd_read(fd)
    return True


def vectors(guest: Guest) -> list[int]:
    return [access[3] for access in guest.recorder.accesses if access[:2] == ("out", VECTOR_PORT)]


def wait_vectors(guest: Guest, *expected: int) -> None:
    guest.wait_for(lambda: vectors(guest) == list(expected))


# Accesses


@pytest.mark.parametrize("size", [1, 2, 4])
def test_out_reaches_dispatch_with_port_size_and_value(guest: Guest, size: int) -> None:
    guest.start(Out(PORT, size, 0x1122_3344 & (1 << 8 * size) - 1))
    assert guest.finish() == [("out", PORT, size, 0x1122_3344 & (1 << 8 * size) - 1)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_in_gives_the_guest_what_dispatch_answers(guest: Guest, size: int) -> None:
    guest.recorder.answers[PORT] = 0x8899_AABB
    guest.start(In(PORT, size))
    assert guest.finish() == [("in", PORT, size)]
    assert guest.results() == [0x8899_AABB & (1 << 8 * size) - 1]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_string_out_gives_one_access_an_element_in_order(guest: Guest, size: int) -> None:
    guest.start(OutString(PORT, size, bytes(range(1, 17))))
    elements = [int.from_bytes(bytes(range(i + 1, i + 1 + size)), "little") for i in range(0, 16, size)]
    assert guest.finish() == [("out", PORT, size, value) for value in elements]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_store_reaches_dispatch_with_address_size_and_value(guest: Guest, size: int) -> None:
    value = 0x8877_6655_4433_2211 & (1 << 8 * size) - 1
    guest.start(Store(WINDOW + 0x10, size, value))
    assert guest.finish() == [("store", WINDOW + 0x10, size, value)]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_load_gives_the_guest_what_dispatch_answers(guest: Guest, size: int) -> None:
    guest.recorder.answers[WINDOW] = 0xF1F2_F3F4_F5F6_F7F8
    guest.start(Load(WINDOW, size))
    assert guest.finish() == [("load", WINDOW, size)]
    assert guest.results() == [0xF1F2_F3F4_F5F6_F7F8 & (1 << 8 * size) - 1]


def test_ram_access_does_not_reach_dispatch(guest: Guest) -> None:
    guest.start(Store(0x20_0000, 8, 0x0123_4567_89AB_CDEF), Load(0x20_0004, 4))
    assert guest.finish() == []
    assert guest.results() == [0x0123_4567]
    assert guest.memory.read(0x20_0000, 8) == bytes.fromhex("efcdab8967452301")


# Memory


def test_region_mapped_later_is_ram(guest: Guest) -> None:
    more = GuestMemory.allocate([MemoryRange(gpa=WINDOW, size=0x1000)])
    guest.vm.map_memory(more.regions[0])
    more.write(WINDOW, b"\x2a")
    guest.start(Load(WINDOW, 1))
    guest.finish()
    assert guest.results() == [0x2A]
    guest.vm.close()
    more.close()


@pytest.mark.not_on("hsm", "ACRN can't take RAM away")
def test_region_unmapped_is_no_ram_any_more(guest: Guest) -> None:
    more = GuestMemory.allocate([MemoryRange(gpa=WINDOW, size=0x1000)])
    guest.vm.map_memory(more.regions[0])
    guest.vm.unmap_memory(more.regions[0])
    guest.start(Load(WINDOW, 1))
    assert ("load", WINDOW, 1) in guest.finish()
    more.close()


def test_overlapping_region_is_eexist(guest: Guest) -> None:
    more = GuestMemory.allocate([MemoryRange(gpa=0x1000, size=0x1000)])
    with pytest.raises(HostError) as caught:
        guest.vm.map_memory(more.regions[0])
    assert caught.value.err == errno.EEXIST
    more.close()


def test_unmapping_unknown_region_is_enoent(guest: Guest) -> None:
    more = GuestMemory.allocate([MemoryRange(gpa=WINDOW, size=0x1000)])
    with pytest.raises(HostError) as caught:
        guest.vm.unmap_memory(more.regions[0])
    assert caught.value.err == errno.ENOENT
    more.close()


# Kicks


def kick(fd: int, space: Space, addr: int, length: int, datamatch: int | None = None) -> IoEventFd:
    return IoEventFd(fd=fd, space=space, addr=addr, len=length, datamatch=datamatch)


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


# Message-signalled interrupts


def test_injected_msi_runs_the_handler_of_its_vector(guest: Guest) -> None:
    guest.start(READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    guest.vm.inject_msi(MsiMessage(addr=MSI.addr, data=VECTORS[1]))
    wait_vectors(guest, VECTORS[1])
    guest.finish()


def test_msi_to_no_processor_vanishes(guest: Guest) -> None:
    guest.start(READY, Spin())
    guest.wait_access("out", READY.port, 1, 1)
    guest.vm.inject_msi(MsiMessage(addr=0xFEE5_5000, data=VECTORS[1]))


def test_signalled_irqfd_runs_the_handler_of_its_vector(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    guest.vm.irqfd(IrqFd(fd=fd, target=MSI), True)
    guest.start(READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(fd, 1)
    wait_vectors(guest, VECTORS[0])
    guest.finish()


@pytest.mark.not_on("hsm", "its module leaves the count alone")
def test_delivered_irqfd_signal_is_consumed(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    guest.vm.irqfd(IrqFd(fd=fd, target=MSI), True)
    guest.start(READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(fd, 1)
    wait_vectors(guest, VECTORS[0])
    guest.finish()
    assert not signalled(fd)


def test_irqfd_signalled_before_registration_is_delivered(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    os.eventfd_write(fd, 1)
    guest.start(READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    guest.vm.irqfd(IrqFd(fd=fd, target=MSI), True)
    wait_vectors(guest, VECTORS[0])


def test_irqfds_with_one_message_work_after_one_is_unregistered(guest: Guest, eventfd: EventFd) -> None:
    first, second = eventfd(), eventfd()
    guest.vm.irqfd(IrqFd(fd=first, target=MSI), True)
    guest.vm.irqfd(IrqFd(fd=second, target=MSI), True)
    guest.vm.irqfd(IrqFd(fd=first, target=MSI), False)
    guest.start(READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(second, 1)
    wait_vectors(guest, VECTORS[0])


def test_irqfd_moved_to_another_message_delivers_that(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    moved = MsiMessage(addr=MSI.addr, data=VECTORS[2])
    guest.vm.irqfd(IrqFd(fd=fd, target=MSI), True)
    guest.vm.irqfd(IrqFd(fd=fd, target=MSI), False)
    guest.vm.irqfd(IrqFd(fd=fd, target=moved), True)
    guest.start(READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(fd, 1)
    wait_vectors(guest, VECTORS[2])


def test_unregistered_irqfd_keeps_its_signal_and_interrupts_nobody(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    guest.vm.irqfd(IrqFd(fd=fd, target=MSI), True)
    guest.vm.irqfd(IrqFd(fd=fd, target=MSI), False)
    guest.start(READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(fd, 1)
    guest.vm.inject_msi(MsiMessage(addr=MSI.addr, data=VECTORS[1]))
    wait_vectors(guest, VECTORS[1])
    assert signalled(fd)


def test_second_irqfd_on_one_eventfd_is_ebusy(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    guest.vm.irqfd(IrqFd(fd=fd, target=MSI), True)
    with pytest.raises(HostError) as caught:
        guest.vm.irqfd(IrqFd(fd=fd, target=MsiMessage(addr=MSI.addr, data=VECTORS[1])), True)
    assert caught.value.err == errno.EBUSY


def test_unregistering_unknown_irqfd_is_enoent(guest: Guest, eventfd: EventFd) -> None:
    with pytest.raises(HostError) as caught:
        guest.vm.irqfd(IrqFd(fd=eventfd(), target=MSI), False)
    assert caught.value.err == errno.ENOENT


# Interrupt lines


def test_asserted_line_interrupts_until_deasserted(guest: Guest) -> None:
    def device(access: tuple[object, ...]) -> None:
        if access[:2] == ("out", VECTOR_PORT) and len(vectors(guest)) == 1:  # the second handler serves the device
            guest.vm.set_irq_line(GSI, False)

    guest.recorder.on_access = device
    guest.start(RouteLine(GSI, VECTORS[0]), READY, AwaitInterrupts(2))
    guest.wait_access("out", READY.port, 1, 1)
    guest.vm.set_irq_line(GSI, True)
    wait_vectors(guest, VECTORS[0], VECTORS[0])
    guest.finish()
    assert vectors(guest) == [VECTORS[0]] * 2


@pytest.mark.not_on("hsm", "its irqfds carry messages only")
def test_line_irqfd_stays_asserted_to_the_eoi_and_signals_resample(guest: Guest, eventfd: EventFd) -> None:
    fd, resample = eventfd(), eventfd()
    guest.vm.irqfd(IrqFd(fd=fd, target=IntxLine(gsi=GSI), resample_fd=resample), True)
    guest.start(RouteLine(GSI, VECTORS[0]), READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(fd, 1)
    wait_vectors(guest, VECTORS[0])
    guest.finish()
    assert signalled(resample, PATIENCE_S)
    assert vectors(guest) == [VECTORS[0]]


@pytest.mark.not_on("hsm", "its irqfds carry messages only")
def test_line_irqfd_without_resample_is_one_edge(guest: Guest, eventfd: EventFd) -> None:
    fd = eventfd()
    guest.vm.irqfd(IrqFd(fd=fd, target=IntxLine(gsi=GSI)), True)
    guest.start(RouteLine(GSI, VECTORS[2], edge=True), READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(fd, 1)
    wait_vectors(guest, VECTORS[2])
    guest.finish()


@pytest.mark.not_on("hsm", "its irqfds carry messages only")
def test_unregistered_line_irqfd_interrupts_nobody(guest: Guest, eventfd: EventFd) -> None:
    fd, resample = eventfd(), eventfd()
    binding = IrqFd(fd=fd, target=IntxLine(gsi=GSI), resample_fd=resample)
    guest.vm.irqfd(binding, True)
    guest.vm.irqfd(binding, False)
    guest.start(RouteLine(GSI, VECTORS[0]), READY, AwaitInterrupts(1))
    guest.wait_access("out", READY.port, 1, 1)
    os.eventfd_write(fd, 1)
    guest.vm.inject_msi(MsiMessage(addr=MSI.addr, data=VECTORS[1]))
    wait_vectors(guest, VECTORS[1])
    assert signalled(fd)


def test_line_beyond_the_ioapic_is_refused(guest: Guest) -> None:
    with pytest.raises(ValueError, match="no IOAPIC pin"):
        guest.vm.set_irq_line(guest.vm.ioapic_pins, True)


# Life cycle


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
