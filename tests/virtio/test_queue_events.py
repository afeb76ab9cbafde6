"""Kick and call eventfds of a running device: they follow BARs, vectors, masks and resets (anchors 45, 50, 65).

The same for both kinds of backend: one in this process, one that only has the two eventfds.
"""

import errno
import os
from collections.abc import Iterator

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import NOTIFICATION_DATA
from tests.virtio.parts import SLOT, call_of, machine_with

pytestmark = pytest.mark.both_formats

NO_VECTOR = 0xFFFF
COMMAND = 0x04


@pytest.fixture(params=["vbs-u", "vhost"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(backend: str) -> Iterator[SimMachine]:
    with machine_with(backend=backend) as made:
        yield made


@pytest.fixture
def driver(machine: SimMachine) -> VirtioDriver:
    made = machine.driver(SLOT)
    made.start()
    return made


def kicks(machine: SimMachine) -> list[tuple[Space, int, int, int | None]]:
    return [(b.space, b.addr, b.len, b.datamatch) for b in machine.vm.kicks.bindings]


def calls(machine: SimMachine) -> list[int]:
    """Message data of the bound calls."""
    return sorted(b.target.data for b in machine.vm.interrupts.bindings if isinstance(b.target, MsiMessage))


def echo(driver: VirtioDriver, index: int = 0) -> None:
    assert driver.queue(index).transfer([b"ab"], [2]).data == b"ba"


# Kicks


@pytest.mark.parametrize(("features", "length"), [(None, 4), (0, 2), (NOTIFICATION_DATA, 4)])
def test_modern_kicks_are_bound_to_each_queues_notify_register(
    machine: SimMachine, driver: VirtioDriver, features: int | None, length: int
) -> None:
    """In the width of what the driver writes: four bytes with NOTIFICATION_DATA, whatever their value."""
    driver.start(features)
    base = driver.function.bars[4].base + 0x3000
    assert kicks(machine) == [(Space.MMIO, base, length, None), (Space.MMIO, base + 4, length, None)]
    echo(driver)


def test_legacy_kicks_are_bound_to_one_port_told_apart_by_value(machine: SimMachine) -> None:
    driver = machine.driver_legacy(SLOT)
    driver.start()
    port = driver.function.bars[0].base + 0x10
    assert kicks(machine) == [(Space.PIO, port, 2, 0), (Space.PIO, port, 2, 1)]
    echo(driver, 1)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_kick_of_any_width_works(machine: SimMachine, driver: VirtioDriver, size: int) -> None:
    driver.queue(1).send([b"ab"], [2])
    driver.function.bar_write(4, 0x3004, size, 1)
    machine.settle()
    assert [c.data for c in driver.queue(1).completed()] == [b"ba"]


@pytest.mark.parametrize("legacy", [False, True])
def test_kicks_follow_a_moved_bar(machine: SimMachine, legacy: bool) -> None:
    driver = machine.driver_legacy(SLOT) if legacy else machine.driver(SLOT)
    driver.start()
    index, base = (0, 0x6000) if legacy else (4, 0x9000_0000)
    driver.function.move_bar(index, base)
    assert {addr & ~0xFFF for _, addr, _, _ in kicks(machine)} == {base if legacy else base + 0x3000}
    echo(driver)


def test_decoding_off_unbinds_the_kicks_and_on_binds_them_again(machine: SimMachine, driver: VirtioDriver) -> None:
    before = kicks(machine)
    driver.function.write(COMMAND, 2, 0)
    assert kicks(machine) == []
    driver.function.write(COMMAND, 2, 7)
    assert kicks(machine) == before
    echo(driver)


def test_row_65_firmware_then_kernel_register_and_unregister_the_same_kicks_twice(machine: SimMachine) -> None:
    """Anchor 65: a flag was missing on unregister, so the hand-over failed."""
    for driver in (machine.driver_legacy(SLOT), machine.driver(SLOT), machine.driver(SLOT)):
        driver.start()
        echo(driver)
        driver.reset()
        assert kicks(machine) == []
        assert calls(machine) == []


def test_refused_kick_goes_through_the_notify_handler_and_is_said_once(
    caplog: pytest.LogCaptureFixture, backend: str
) -> None:
    with machine_with(backend=backend) as machine:
        machine.start()
        for _ in range(2):
            machine.vm.fail("ioeventfd", errno.ENOSPC)
        driver = machine.driver(SLOT)
        driver.start()
        assert kicks(machine) == [(Space.MMIO, driver.function.bars[4].base + 0x3004, 4, None)] or kicks(machine) == []
        for index in (0, 1):
            echo(driver, index)
        assert len([r for r in caplog.records if "slower" in r.message and r.levelname == "WARNING"]) == 1


def test_notify_handler_never_walks_the_ring_itself(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.start(0)
    driver.queue(0).send([b"ab"], [2])
    driver.function.bar_write(4, 0x3000, 4, 0)
    assert driver.queue(0).completed() == []
    machine.settle()
    assert len(driver.queue(0).completed()) == 1


def test_a_plugin_can_veto_eventfds_and_the_device_still_works(backend: str) -> None:
    class Veto:
        @hookimpl(tryfirst=True)
        def acrn_dm_vhm_ioeventfd(self, vm: object, binding: IoEventFd, assign: bool) -> bool:
            return False

        @hookimpl(tryfirst=True)
        def acrn_dm_vhm_irqfd(self, vm: object, binding: IrqFd, assign: bool) -> bool:
            return False

    with machine_with(backend=backend, plugins=[Veto()]) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        assert kicks(machine) == []
        assert calls(machine) == []
        echo(driver)
        assert driver.queue_interrupts(0) == 1


def test_polling_binds_no_kicks_where_it_is_this_process_that_polls(backend: str) -> None:
    with machine_with(backend=backend, poll_ns=1_000_000) as machine:
        machine.driver(SLOT).start()
        assert len(kicks(machine)) == (0 if backend == "vbs-u" else 2)


# Calls


def test_calls_are_bound_to_the_queues_messages(machine: SimMachine, driver: VirtioDriver) -> None:
    assert calls(machine) == [driver.function.message_data(1), driver.function.message_data(2)]


def test_row_45_mask_unbinds_and_an_interrupt_meanwhile_is_pending_then_delivered_once(
    machine: SimMachine, driver: VirtioDriver
) -> None:
    """Anchor 45: mask and unmask with an interrupt pending."""
    driver.function.mask(1)
    assert calls(machine) == [driver.function.message_data(2)]
    for _ in range(3):
        driver.queue(0).transfer([b"a"], [1])
    assert driver.interrupts(1) == 0
    assert driver.function.pending(1)
    driver.function.mask(1, False)
    assert driver.interrupts(1) == 1
    assert not driver.function.pending(1)
    echo(driver)
    assert driver.interrupts(1) == 2


def test_function_mask_holds_every_vector(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.function.mask_function()
    assert calls(machine) == []
    echo(driver, 0)
    echo(driver, 1)
    assert not machine.interrupts
    driver.function.mask_function(False)
    assert [driver.interrupts(v) for v in (0, 1, 2)] == [0, 1, 1]


def test_unmask_without_anything_pending_is_silent(machine: SimMachine, driver: VirtioDriver) -> None:
    echo(driver)
    for _ in range(3):
        driver.function.mask(1)
        driver.function.mask(1, False)
    assert driver.interrupts(1) == 1


def test_interrupt_already_signalled_is_delivered_before_a_mask_and_not_again(
    machine: SimMachine, driver: VirtioDriver
) -> None:
    call_of(machine, 0)()  # signalled; the simulated controller has not looked yet
    driver.function.mask(1)
    driver.function.mask(1, False)
    assert driver.interrupts(1) == 1


def test_rewritten_message_is_followed(machine: SimMachine, driver: VirtioDriver) -> None:
    for round_ in range(3):
        driver.function.write_vector(1, 0x7000 + round_)
        echo(driver)
        machine.take_interrupts()
        assert machine.interrupts[0x7000 + round_] == 1


def test_row_45_vector_of_a_running_queue_can_change_between_requests(
    machine: SimMachine, driver: VirtioDriver
) -> None:
    """Anchor 45: vector changed while in use, reception stalled afterwards."""
    for vector in (2, 0, 1, NO_VECTOR, 1):
        driver.registers.map_vector(0, vector)
        before = sum(driver.interrupts(v) for v in range(3))
        echo(driver)
        now = sum(driver.interrupts(v) for v in range(3))
        assert now - before == (vector != NO_VECTOR)


def test_no_vector_means_no_interrupt_not_even_by_the_line(machine: SimMachine, driver: VirtioDriver) -> None:
    """Row pci.used_notify.no_vector."""
    driver.registers.map_vector(0, NO_VECTOR)
    echo(driver)
    assert not machine.interrupts
    assert not driver.line
    assert driver.registers.read_isr() == 0


def test_shared_vector_interrupts_for_both_queues(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.registers.map_vector(0, 1)
    driver.registers.map_vector(1, 1)
    echo(driver, 0)
    echo(driver, 1)
    assert driver.interrupts(1) == 2


def test_without_msix_the_line_interrupts(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.function.enable_msix(False)
    assert calls(machine) == []
    echo(driver)
    assert driver.line
    assert driver.registers.read_isr() == 1
    assert not driver.line
    driver.function.enable_msix()
    echo(driver)
    assert not driver.line
    assert driver.interrupts(1) == 1


def test_refused_call_is_injected_by_the_device_model(backend: str) -> None:
    with machine_with(backend=backend) as machine:
        machine.start()
        machine.vm.fail("irqfd", errno.EINVAL)
        driver = machine.driver(SLOT)
        driver.start()
        assert calls(machine) == [driver.function.message_data(2)]
        echo(driver)
        assert driver.interrupts(1) == 1


def test_reset_forgets_pending_interrupts(machine: SimMachine, driver: VirtioDriver) -> None:
    """Row reset.no_notify."""
    driver.function.mask(1)
    echo(driver)
    driver.reset()
    driver.function.mask(1, False)
    assert driver.interrupts(1) == 0


def test_signal_after_reset_is_dropped(machine: SimMachine, driver: VirtioDriver) -> None:
    call = call_of(machine, 0)
    driver.reset()
    call()
    machine.settle()
    assert not machine.interrupts


@pytest.mark.parametrize("made", [0, 1, 2, 3])
def test_start_that_runs_out_of_descriptors_gives_back_those_it_got(
    monkeypatch: pytest.MonkeyPatch, machine: SimMachine, made: int
) -> None:
    driver = machine.driver(SLOT)
    driver.negotiate()
    for index in (0, 1):
        driver.setup_queue(index)
    left, real, before = made, os.eventfd, len(os.listdir("/proc/self/fd"))

    def a_few(*args: int) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.EMFILE, "too many")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr("os.eventfd", a_few)
        driver.driver_ok()
    assert driver.status & 64
    assert len(os.listdir("/proc/self/fd")) == before


def test_eventfds_are_gone_when_they_can_not_be_made(monkeypatch: pytest.MonkeyPatch, machine: SimMachine) -> None:
    def no_more(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many")

    driver = machine.driver(SLOT)
    driver.negotiate()
    driver.setup_queue(0)
    with monkeypatch.context() as patch:
        patch.setattr("os.eventfd", no_more)
        driver.driver_ok()
    assert driver.status & 64
    assert isinstance(machine.failures[0][1], HostError)
    driver.start()
    echo(driver)
