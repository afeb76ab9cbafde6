"""What every hypervisor does with interrupts: messages and lines, by calls and by eventfds."""

import errno
import os

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IntxLine, IrqFd, MsiMessage
from tests.hypervisors.guest_program import (
    VECTOR_PORT,
    VECTORS,
    AwaitInterrupts,
    RouteLine,
    Spin,
)
from tests.hypervisors.guests import PATIENCE_S, Guest
from tests.hypervisors.protocol.setting import (
    GSI,
    MSI,
    READY,
    EventFd,
    signalled,
    vectors,
    wait_vectors,
)

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
