"""The virtual clock: loops, timers, chips and threads that wait for it and for nothing else."""

import threading
import time
from collections.abc import Iterator

import pytest

from acrn_dm.base.address_map import PM1A_EVENT
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.backlog import PATIENCE_S, Backlog
from acrn_dm.devices.platform.pm import PM_TIMER, PM_TIMER_HZ
from acrn_dm.testing import SimMachine, VirtualClock
from acrn_dm.testing.clock import settle
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import SLOT, Echo, machine_with

HOUR = 3600.0


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def loops(clock: VirtualClock) -> Iterator[list[IoLoop]]:
    made = [IoLoop("first", clock), IoLoop("second", clock)]
    yield made
    for loop in made:
        loop.close()


def test_timers_of_all_loops_run_in_the_order_of_time_and_see_their_own(
    clock: VirtualClock, loops: list[IoLoop]
) -> None:
    seen: list[tuple[int, float]] = []
    for loop, delay in ((0, 3.0), (1, 2.0), (0, 1.0), (1, 0.1)):
        loops[loop].call_later(delay, lambda n=loop: seen.append((n, clock.monotonic())))
    clock.advance(3.0)
    assert seen == [(1, 0.1), (0, 1.0), (1, 2.0), (0, 3.0)]


def test_timer_that_is_not_due_waits(clock: VirtualClock, loops: list[IoLoop]) -> None:
    seen: list[int] = []
    loops[0].call_later(1.0, lambda: seen.append(1))
    clock.advance(0.999_999_999)
    assert seen == []
    clock.advance(0.000_000_001)
    assert seen == [1]


def test_timer_that_arms_itself_anew_runs_as_often_as_fits(clock: VirtualClock, loops: list[IoLoop]) -> None:
    seen: list[float] = []

    def tick() -> None:
        seen.append(clock.monotonic())
        loops[0].call_later(0.25, tick)

    loops[0].call_later(0.25, tick)
    clock.advance(1.0)
    assert seen == [0.25, 0.5, 0.75, 1.0]


def test_cancelled_timer_is_nothing_to_wait_for(clock: VirtualClock, loops: list[IoLoop]) -> None:
    timer = loops[0].call_later(1.0, lambda: None)
    clock.settle()
    timer.cancel()
    assert not clock.advance_to_next()
    assert clock.monotonic() == 0.0


def test_hours_pass_without_waiting(clock: VirtualClock, loops: list[IoLoop]) -> None:
    began = time.monotonic()
    for hour in range(100):
        loops[0].call_later(hour * HOUR, lambda: None)
    clock.advance(100 * HOUR)
    assert time.monotonic() - began < 5.0
    assert clock.monotonic() == 100 * HOUR


def test_loop_with_a_thread_runs_its_timers_on_it(clock: VirtualClock, loops: list[IoLoop]) -> None:
    ran: list[str] = []
    loops[0].start()
    loops[0].call_later(5.0, lambda: ran.append(threading.current_thread().name))
    clock.advance(4.0)
    assert ran == []
    clock.advance(1.0)
    assert ran == ["first"]


def test_thread_that_sleeps_wakes_when_the_clock_is_there(clock: VirtualClock) -> None:
    woken: list[float] = []
    thread = threading.Thread(target=lambda: (clock.sleep(2.0), woken.append(clock.monotonic())))
    thread.start()
    while not clock.asleep:
        thread.join(0.001)
    clock.advance(1.0)
    assert (clock.asleep, woken) == (1, [])
    assert clock.advance_to_next()
    thread.join(10)
    assert (clock.asleep, woken) == (0, [2.0])


def test_settle_does_not_wait_for_work_that_sleeps_on_the_clock(clock: VirtualClock, loops: list[IoLoop]) -> None:
    loop, done = loops[0], []

    def work() -> None:
        clock.sleep(1.0)
        loop.call_soon(finished)

    def finished() -> None:
        loop.in_flight -= 1
        done.append(clock.monotonic())

    loop.in_flight += 1
    threading.Thread(target=work).start()
    settle(loops, clock)
    assert not done
    clock.advance(1.0)
    assert done == [1.0]


def test_sleep_of_who_moves_the_clock_moves_it(clock: VirtualClock) -> None:
    clock.sleep(1.5)
    assert clock.monotonic_ns() == 1_500_000_000


def test_run_until_stops_at_the_timer_that_makes_it_true(clock: VirtualClock, loops: list[IoLoop]) -> None:
    seen: list[int] = []
    for delay in (1, 2, 3):
        loops[0].call_later(delay, lambda n=delay: seen.append(n))
    clock.run_until(lambda: 2 in seen)
    assert clock.monotonic() == 2.0
    with pytest.raises(AssertionError, match=r"not within 0\.5 s"):
        clock.run_until(lambda: False, 0.5)


def test_run_until_says_that_nothing_will_happen(clock: VirtualClock) -> None:
    with pytest.raises(AssertionError, match="nothing waits for time"):
        clock.run_until(lambda: False)


def test_time_does_not_go_back(clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)


class Late(Echo):
    """Answers a second later, by a timer of its own."""

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            queue.loop.call_later(1.0, lambda c=chain: (queue.push(c), queue.flush()))


def test_timer_of_a_device_follows_the_machines_clock(clock: VirtualClock) -> None:
    with machine_with(Late, clock=clock) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.queue(0).send([b"a"], [1])
        driver.queue(0).kick()
        machine.advance(0.9)
        assert (driver.queue(0).completed(), driver.queue_interrupts(0)) == ([], 0)
        machine.advance(0.1)
        assert (len(driver.queue(0).completed()), driver.queue_interrupts(0)) == (1, 1)


def test_polled_queue_is_looked_at_in_the_machines_time(clock: VirtualClock) -> None:
    with machine_with(clock=clock, poll_ns=500_000) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.queue(0).send([b"ab"], [2])
        machine.settle()
        assert driver.queue(0).completed() == []
        machine.advance(0.001)
        assert [c.data for c in driver.queue(0).completed()] == [b"ba"]


def test_device_has_the_machines_clock_in_its_resources(clock: VirtualClock) -> None:
    class Asks(Echo):
        def realize(self, resources: object) -> None:
            self.clock = resources.clock  # type: ignore[attr-defined]

    with SimMachine(clock=clock) as machine:
        function = machine.add(Asks, slot=SLOT)
        machine.start()
        assert function.device.clock is clock


def test_pm_timer_counts_the_machines_time_and_its_carry_interrupts(clock: VirtualClock) -> None:
    with SimMachine(clock=clock) as machine:
        machine.start()
        before = machine.vm.pio_read(PM_TIMER, 4)
        machine.advance(1.0)
        assert machine.vm.pio_read(PM_TIMER, 4) - before == PM_TIMER_HZ
        machine.advance((1 << 31) / PM_TIMER_HZ)
        assert machine.vm.pio_read(PM1A_EVENT, 2) & 1


def rtc(machine: SimMachine, register: int) -> str:
    machine.vm.pio_write(0x70, 1, register)
    return f"{machine.vm.pio_read(0x71, 1):02x}"


def test_rtc_shows_the_machines_time(clock: VirtualClock) -> None:
    with SimMachine(clock=clock) as machine:
        machine.start()
        machine.advance(23 * HOUR + 59 * 60 + 58)
        assert [rtc(machine, r) for r in (4, 2, 0)] == ["23", "59", "58"]
        machine.advance(2)
        assert [rtc(machine, r) for r in (7, 4, 2, 0)] == ["02", "00", "00", "00"]


def test_patience_with_a_slow_reader_is_spent_in_the_machines_time(clock: VirtualClock) -> None:
    backlog = Backlog(limit=1, clock=clock)
    backlog.append(b"x")
    assert backlog.patience() == PATIENCE_S
    clock.advance(PATIENCE_S / 4)
    assert backlog.patience() == pytest.approx(PATIENCE_S * 3 / 4)


def test_machine_with_the_hosts_clock_does_not_advance() -> None:
    with SimMachine() as machine, pytest.raises(TypeError, match="VirtualClock"):
        machine.advance(1.0)
