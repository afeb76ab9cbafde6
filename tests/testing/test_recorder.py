"""The recorder: one sequence of interrupts, kicks, eventfds, hooks and log records, with order and time."""

import logging
from collections.abc import Iterator

import pytest

from acrn_dm.base.errors import GuestError
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.testing import Recorder, SimMachine, VirtioDriver, VirtualClock
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import SLOT, Echo, machine_with

log = logging.getLogger("acrn_dm.devices.mine")


class Says(Echo):
    def handle_queue(self, queue: Queue) -> None:
        super().handle_queue(queue)
        log.info("queue %d was served", queue.index)


class Fails(Echo):
    def handle_queue(self, queue: Queue) -> None:
        if queue.pop_batch():
            raise GuestError("no header")


class Veto:
    @hookimpl
    def acrn_dm_vhm_irqfd(self, assign: bool) -> bool | None:
        return False if assign else None


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with machine_with(Says, clock=VirtualClock()) as it:
        yield it


def started(machine: SimMachine, **options: bool) -> VirtioDriver:
    driver = machine.driver(SLOT, **options)
    driver.start()
    return driver


def test_request_is_a_kick_then_what_the_device_says_then_its_interrupt(machine: SimMachine) -> None:
    driver = started(machine)
    with machine.record() as recorder:
        driver.queue(1).transfer([b"a"], [1])
    assert recorder.lines() == ["kick 3.0 queue 1", "log INFO queue 1 was served", "interrupt 3.0 vector 2"]


def test_events_have_order_and_the_machines_time(machine: SimMachine) -> None:
    driver = started(machine)
    with machine.record() as recorder:
        for _ in range(2):
            machine.advance(0.5)
            driver.queue(0).transfer([b"a"], [1])
    assert [(e.order, e.at) for e in recorder.events] == [(n, 0.5 if n < 3 else 1.0) for n in range(6)]


def test_it_prints_as_a_table(machine: SimMachine) -> None:
    with machine.record() as recorder:
        machine.advance(1.25)
        log.warning("late")
    assert str(recorder) == "   0     1.250000 s  log       WARNING late"


def test_start_of_a_driver_binds_kicks_and_calls_and_its_reset_unbinds_them(machine: SimMachine) -> None:
    with machine.record() as recorder:
        started(machine).reset()
    bound = ["kick 3.0 queue 0", "call 3.0 vector 1", "kick 3.0 queue 1", "call 3.0 vector 2"]
    lines = recorder.lines("eventfd")
    assert lines[:4] == [f"eventfd bind {what}" for what in bound]
    assert sorted(lines[4:]) == sorted(f"eventfd unbind {what}" for what in bound)


def test_line_rises_and_falls(machine: SimMachine) -> None:
    driver = started(machine, msix=False)
    with machine.record() as recorder:
        driver.queue(0).transfer([b"a"], [1])
        driver.registers.read_isr()
    gsi = next(gsi for slot, pin, gsi in machine.bus.prt() if (slot, pin) == (SLOT, 0))
    assert recorder.lines("interrupt") == [f"interrupt line {gsi} up", f"interrupt line {gsi} down"]


def test_msi_is_told_by_its_function() -> None:
    with machine_with(virtio_msi=True) as machine, machine.record() as recorder:
        driver = machine.driver(SLOT)
        driver.function.enable_msi()
        driver.start()
        driver.queue(0).transfer([b"a"], [1])
        assert recorder.lines("interrupt") == ["interrupt 3.0 msi"]


def test_hooks_are_told_also_one_that_vetoes() -> None:
    with machine_with(plugins=[Veto()]) as machine, machine.record() as recorder:
        started(machine)
        assert "hook acrn_dm_vhm_irqfd bind call 3.0 vector 1" in recorder.lines()
        assert not any(line.startswith("eventfd bind call") for line in recorder.lines())


def test_failure_of_a_device_comes_with_its_error() -> None:
    with machine_with(Fails) as machine, machine.record() as recorder:
        driver = started(machine)
        driver.queue(0).send([b"a"])
        driver.queue(0).kick()
        machine.settle()
        recorder.assert_sequence("kick 3.0 *", "log WARNING *no header", "hook acrn_dm_device_failed GuestError: *")


def test_sequence_that_did_not_come_is_told_with_all_that_did(machine: SimMachine) -> None:
    driver = started(machine)
    with machine.record() as recorder:
        driver.queue(0).transfer([b"a"], [1])
    with pytest.raises(AssertionError, match=r"(?s)no 'kick \*' after 'interrupt 3.0 vector 1':\n.*kick      3.0"):
        recorder.assert_sequence("interrupt*", "kick *")


def test_what_is_cleared_is_forgotten_and_order_goes_on(machine: SimMachine) -> None:
    driver = started(machine)
    with machine.record() as recorder:
        driver.queue(0).transfer([b"a"], [1])
        recorder.clear()
        log.info("more")
    assert [(e.order, e.what) for e in recorder.events] == [(3, "INFO more")]


def test_nothing_is_recorded_after_the_block(machine: SimMachine) -> None:
    level = logging.getLogger("acrn_dm").level
    driver = started(machine)
    with machine.record() as recorder:
        pass
    driver.queue(0).transfer([b"a"], [1])
    assert recorder.events == []
    assert logging.getLogger("acrn_dm").level == level


def test_two_recorders_do_not_disturb_each_other(machine: SimMachine) -> None:
    driver = started(machine)
    with machine.record() as first:
        second: Recorder
        with machine.record() as second:
            pass
        driver.queue(0).transfer([b"a"], [1])
    assert (len(first.events), second.events) == (3, [])
