"""Activation that fails, DEVICE_NEEDS_RESET, and reset with work in flight (rows reset.*, status.needs_reset.*)."""

import logging
from collections.abc import Sequence

import pytest

from acrn_dm.base.errors import GuestError, HostError
from acrn_dm.ring.layout import DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import SLOT, Echo, Holding, device_of, machine_with

pytestmark = pytest.mark.both_formats(fast=True)

NEEDS_RESET, DRIVER_OK = 64, 4


@pytest.mark.parametrize("error", [GuestError("guest"), HostError("host"), RuntimeError("bug"), OSError(5, "x")])
def test_row_57_activation_that_fails_lets_the_write_return_and_asks_for_a_reset(error: Exception) -> None:
    """Anchor 57: a failed activation left the vCPU blocked in the DRIVER_OK write."""

    class Failing(Echo):
        fail_next = True

        def start(self, features: int, queues: Sequence[Queue]) -> None:
            super().start(features, queues)
            if self.fail_next:
                raise error

    with machine_with(Failing) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        assert driver.status & (NEEDS_RESET | DRIVER_OK) == NEEDS_RESET | DRIVER_OK
        assert driver.config_interrupts == 1
        assert driver.registers.read_isr() == 2
        assert machine.failures == [(device_of(machine), error)]
        assert device_of(machine).calls == ["start", "stop"]
        assert machine.vm.kicks.bindings == machine.vm.interrupts.bindings == []
        Failing.fail_next = False
        driver.start()
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


@pytest.mark.parametrize("part", ["queue_desc", "queue_driver", "queue_device"])
@pytest.mark.parametrize("gpa", [0xFFFF_FFFF_FFFF_FFF0, 0x8000_4000, 16 << 20, 0x10_0001, 0xFEE0_0000])
def test_row_55_row_66_queue_enabled_at_an_impossible_address_needs_a_reset(part: str, gpa: int) -> None:
    """Anchors 55 and 66: invalid queue activated; ring in the device's own BAR or in the local APIC."""
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.negotiate()
        driver.registers.map_vector(None, 0)
        driver.setup_queue(0)
        driver.registers.queue_size(1)
        for name in ("queue_desc", "queue_driver", "queue_device"):
            driver.registers.write(name, gpa if name == part else 0x20_0000)
        driver.registers.write("queue_enable", 1)
        driver.driver_ok()
        assert driver.status & NEEDS_RESET
        assert driver.config_interrupts == 1
        driver.start()
        assert driver.queue(1).transfer([b"ab"], [2]).data == b"ba"


def test_row_52_row_54_queues_the_driver_did_not_set_up_stay_untouched() -> None:
    """Anchors 52 and 54: a kick before set-up, and a driver that uses fewer queues than there are."""
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.negotiate()
        for queue in (0, 1, 2, 1023):
            driver.function.bar_write(4, 0x3000 + 4 * queue, 2, queue)
        driver.setup_queue(1)
        driver.driver_ok()
        driver.registers.notify(0)
        machine.settle()
        assert [q.index for q in device_of(machine).queues] == [1]
        assert driver.queue(1).transfer([b"ab"], [2]).data == b"ba"


def test_device_starts_with_no_queue_at_all() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start(queues=[])
        assert driver.status == 15


def _loop_in_descriptors(driver: VirtioDriver, index: int = 0) -> None:
    ring = driver.queue(index).ring
    ring.write_desc(0, 0x10_0000, 16, DESC_F_NEXT, 1)
    ring.write_desc(1, 0x10_0000, 16, DESC_F_NEXT, 0)
    ring.make_available(0)
    ring.publish()
    driver.queue(index).kick(force=True)


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_row_01_malformed_ring_asks_for_a_reset_and_leaves_other_queues_alive() -> None:
    """Anchor 1; rows status.needs_reset.set and status.needs_reset.notify."""
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        _loop_in_descriptors(driver)
        machine.settle()
        assert driver.status & NEEDS_RESET
        assert driver.config_interrupts == 1
        assert isinstance(machine.failures[0][1], GuestError)
        assert driver.queue(1).transfer([b"ab"], [2]).data == b"ba"
        driver.queue(0).kick(force=True)
        machine.settle()
        assert len(machine.failures) == 1
        driver.start()
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_second_failure_before_the_reset_is_not_told_again() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        _loop_in_descriptors(driver, 0)
        _loop_in_descriptors(driver, 1)
        machine.settle()
        assert len(machine.failures) == 1
        assert driver.config_interrupts == 1


def test_driver_ok_is_refused_until_the_reset() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.negotiate()
        device_of(machine).fail(GuestError("no"))
        machine.settle()
        driver.driver_ok()
        assert driver.status == 1 | 2 | 8 | NEEDS_RESET
        assert driver.config_interrupts == 0  # DRIVER_OK was not set


def test_error_of_the_last_driver_does_not_hit_the_next_one() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        device_of(machine).fail(GuestError("late"))
        driver.reset()
        driver.start()
        assert not driver.status & NEEDS_RESET
        assert machine.failures == []


def test_error_reported_while_the_reset_waits_for_the_queues_is_the_old_drivers() -> None:
    class FailsAtTheEnd(Echo):
        def stop(self) -> None:
            super().stop()
            self.fail(GuestError("the last chain was bad"))
            self.config_changed()

    with machine_with(FailsAtTheEnd) as machine:
        driver = machine.driver(SLOT)
        for _ in range(3):
            driver.start()
            assert not driver.status & NEEDS_RESET
            assert driver.config_interrupts == 0


def test_failures_are_all_counted_but_logged_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    with machine_with() as machine, caplog.at_level(logging.WARNING):
        driver = machine.driver(SLOT)
        for _ in range(20):
            driver.start()
            device_of(machine).fail(GuestError("again"))
            machine.settle()
        assert len(machine.failures) == 20
        assert 1 <= len([r for r in caplog.records if "needs a reset" in r.message]) < 20


def test_failure_of_a_plugin_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(Echo):
        def handle_queue(self, queue: Queue) -> None:
            raise ZeroDivisionError

    with machine_with(Buggy) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.registers.notify(0)
        machine.settle()
        assert driver.status & NEEDS_RESET
        assert any(r.exc_info for r in caplog.records)


def test_row_59_row_68_reset_drops_late_completions_and_the_next_driver_works() -> None:
    """Anchors 59 and 68; rows reset.no_notify and reset.no_queue_access."""
    with machine_with(Holding) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        for _ in range(5):
            driver.queue(0).send([b"x"], [16])
        driver.queue(0).kick()
        machine.settle()
        held = device_of(machine)
        assert isinstance(held, Holding)
        assert len(held.held) == 5
        old = driver.queue(0)
        driver.reset()
        machine.memory.write(old.ring.layout.desc, b"\xee" * 4096)
        before = machine.memory.read(old.ring.layout.desc, 8192)
        held.complete()
        machine.settle()
        assert machine.memory.read(old.ring.layout.desc, 8192) == before
        assert driver.queue_interrupts(0) == 0
        driver.start()
        driver.queue(0).send([b"x"], [4])
        driver.queue(0).kick()
        machine.settle()
        held.complete()
        machine.settle()
        assert [c.data for c in driver.queue(0).completed()] == [b"done"]
        assert driver.queue_interrupts(0) == 1


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_completion_on_a_queue_that_broke_meanwhile_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with machine_with(Holding) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        queue = driver.queue(0)
        queue.send([b"x"], [16])
        queue.kick()
        machine.settle()
        queue.ring.set_avail_idx(queue.ring.published_avail + 0x4000)
        queue.kick(force=True)
        machine.settle()
        held = device_of(machine)
        assert isinstance(held, Holding)
        held.complete()
        machine.settle()
        assert queue.completed() == []
        assert "handler on loop" not in caplog.text
        assert len(machine.failures) == 1


def test_row_61_initialisation_on_the_same_pages_starts_from_index_zero() -> None:
    """Anchor 61: a stale index was used as base after the reset."""
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        layout = driver.queue(0).ring.layout
        for _ in range(70):
            driver.queue(0).transfer([b"ab"], [2])
        driver.reset()
        machine.heap.give(layout.desc)
        driver.start(queues=[0])
        assert driver.queue(0).ring.layout.desc == layout.desc
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_row_68_used_buffers_while_the_driver_fails_do_not_leave_chains_in_flight() -> None:
    """Anchor 68: failure in the middle of a batch; the in-use count returns to 0 with the reset."""
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        queue = driver.queue(0)
        queue.send([b"good"], [4])
        ring = queue.ring
        ring.write_desc(60, 0xFFFF_FFFF_0000, 16)
        ring.make_available(60)
        ring.publish()
        queue.kick(force=True)
        machine.settle()
        assert [c.data for c in queue.completed()] == [b"doog"]
        assert driver.status & NEEDS_RESET
        driver.reset()
        assert all(q.closed for q in device_of(machine).queues)


def test_reset_while_nothing_runs_is_harmless() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        for _ in range(3):
            driver.reset()
        assert device_of(machine).calls == []


def test_machine_reset_stops_the_device_and_frees_its_eventfds() -> None:
    with machine_with() as machine:
        machine.driver(SLOT).start()
        machine.reset()
        assert device_of(machine).calls == ["start", "stop"]
        assert machine.vm.kicks.bindings == machine.vm.interrupts.bindings == []
        driver = machine.driver(SLOT)
        assert driver.status == 0
        driver.start()
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


def test_stop_that_raises_still_completes_the_reset(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Echo):
        def stop(self) -> None:
            raise RuntimeError("not now")

    with machine_with(Stubborn) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.reset()
        assert driver.status == 0
        assert "did not stop cleanly" in caplog.text


def test_close_stops_and_closes_a_running_device_once() -> None:
    machine: SimMachine = machine_with()
    device = device_of(machine)
    with machine:
        machine.driver(SLOT).start()
        machine.bus.functions[0].close()
    assert device.calls == ["start", "stop", "close"]


def test_row_54_polling_touches_only_the_queues_the_driver_set_up() -> None:
    """A driver (VxWorks's) that uses fewer queues than the device has, while the device polls."""
    with machine_with(poll_ns=100_000) as machine:
        driver = machine.driver(SLOT)
        driver.negotiate(0)
        driver.setup_queue(1)
        driver.driver_ok()
        driver.queue(1).send([b"ab"], [2])
        done: list[bytes] = []
        for _ in range(1000):
            machine.io_loop("io").step(0.01)
            done += [c.data for c in driver.queue(1).completed()]
            if done:
                break
        assert done == [b"ba"]
        assert not driver.status & NEEDS_RESET


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
@pytest.mark.parametrize("place", ["its own registers", "another device's", "the local APIC", "configuration space"])
def test_row_66_buffer_in_a_device_or_the_local_apic_is_refused(place: str) -> None:
    """CVE-2024-3446: DMA into the device's own registers re-entered it."""
    machine = machine_with()
    machine.add(Echo, slot=SLOT + 1)
    with machine:
        driver, other = machine.driver(SLOT), machine.driver(SLOT + 1)
        other.start()
        gpa = {
            "its own registers": driver.function.bars[4].base,
            "another device's": other.function.bars[4].base,
            "the local APIC": 0xFEE0_0000,
            "configuration space": 0xE000_0000,
        }[place]
        driver.start()
        ring = driver.queue(0).ring
        ring.write_desc(0, 0x10_0000, 16, DESC_F_NEXT, 1)
        ring.write_desc(1, gpa, 16, DESC_F_WRITE)
        ring.make_available(0)
        ring.publish()
        machine.memory.write(0x10_0000, bytes(16))
        driver.queue(0).kick(force=True)
        machine.settle()
        assert driver.status == 15 | NEEDS_RESET
        assert other.status == 15
        assert other.queue(0).transfer([b"ab"], [2]).data == b"ba"
