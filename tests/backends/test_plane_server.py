"""acrn_dm.backends.plane_server: queues that a device has served in C, through registers, rings and interrupts."""

from collections.abc import Sequence

import pytest

from acrn_dm.contract.types import DeviceContext
from acrn_dm.pci.eventfds import CallEvent
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.native._echo_plane import EchoPlane
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.pci.transport import VirtioPci
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import SLOT, Echo
from tests.virtio.pause import pause

pytestmark = pytest.mark.both_formats(fast=True)


class Native(Echo):
    """Queue 0 is served in C, queue 1 in Python."""

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        self.echo = EchoPlane()
        self.python: list[int] = []

    def plane(self, features: int, queue: Queue) -> EchoPlane | None:
        return self.echo if queue.index == 0 else None

    def handle_queue(self, queue: Queue) -> None:
        self.python.append(queue.index)
        super().handle_queue(queue)


def started(machine: SimMachine, features: int | None = None) -> tuple[VirtioDriver, Native]:
    machine.add(Native, slot=SLOT)
    driver = machine.driver(SLOT)
    driver.start(features)
    return driver, machine.device(SLOT, Native)


def function_of(machine: SimMachine) -> VirtioPci[Native]:
    (function,) = [f for f in machine.bus.functions if isinstance(f, VirtioPci)]
    return function


def fill(driver: VirtioDriver, count: int, data: bytes = b"ab") -> None:
    for _ in range(count):
        driver.queue(0).send([data], [len(data)])


def returned(machine: SimMachine, driver: VirtioDriver) -> list[bytes]:
    driver.queue(0).kick()
    machine.settle()
    return [completion.data for completion in driver.queue(0).completed()]


@pytest.mark.parametrize("features", [None, 0, 1 << 28, 1 << 29])
def test_full_ring_again_and_again_without_handle_queue(features: int | None) -> None:
    with SimMachine() as machine:
        driver, device = started(machine, features)
        for n in range(20):
            fill(driver, 32, b"%02d" % n)
            assert returned(machine, driver) == [b"%02d" % n] * 32
        assert device.python == [1]  # its look at the other queue when that started


def test_other_queues_of_the_device_are_served_in_python() -> None:
    with SimMachine() as machine:
        driver, _ = started(machine)
        assert driver.queue(1).transfer([b"abc"], [3]).data == b"cba"
        assert driver.queue(0).transfer([b"abc"], [3]).data == b"abc"


def test_driver_is_interrupted_once_for_a_batch_and_not_where_it_wants_none() -> None:
    with SimMachine() as machine:
        driver, _ = started(machine, 0)
        vector = driver.default_vector(0)
        fill(driver, 8)
        returned(machine, driver)
        assert driver.interrupts(vector) == 1
        driver.queue(0).set_quiet(True)
        fill(driver, 8)
        returned(machine, driver)
        assert driver.interrupts(vector) == 1


def test_driver_without_msix_is_interrupted_by_its_line() -> None:
    with SimMachine() as machine:
        machine.add(Native, slot=SLOT)
        driver = machine.driver(SLOT, msix=False)
        driver.start()
        fill(driver, 2)
        assert returned(machine, driver) == [b"ab"] * 2
        assert driver.registers.read_isr() & 1


def test_call_that_others_may_have_is_signalled_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vhost-user client's eventfd, which it may fill or change at any time."""
    monkeypatch.setattr(CallEvent, "private", False)
    with SimMachine() as machine:
        driver, _ = started(machine, 0)
        fill(driver, 4)
        assert returned(machine, driver) == [b"ab"] * 4
        assert driver.queue_interrupts(0) == 1


@pytest.mark.parametrize("stops", ["before", "after"])
def test_such_a_call_comes_although_the_queue_stops_meanwhile(monkeypatch: pytest.MonkeyPatch, stops: str) -> None:
    """What is done last is returned when the plane has stopped, and Python has had no turn since."""
    monkeypatch.setattr(CallEvent, "private", False)
    with SimMachine() as machine:
        driver, device = started(machine, 0)
        device.echo.keeps = True
        fill(driver, 2)
        assert returned(machine, driver) == []
        if stops == "after":
            device.echo.release()
        else:
            monkeypatch.setattr(device, "stop", device.echo.release)
        pause(function_of(machine))
        assert driver.queue_interrupts(0) == 1
        assert len(driver.queue(0).completed()) == 2


def test_chains_that_were_kept_are_returned_when_they_are_done() -> None:
    with SimMachine() as machine:
        driver, device = started(machine)
        device.echo.keeps = True
        fill(driver, 5)
        assert returned(machine, driver) == []
        with machine.io_loop("io").held():
            device.echo.release()
        assert returned(machine, driver) == [b"ab"] * 5


def test_completion_for_an_earlier_driver_is_dropped_and_counted() -> None:
    with SimMachine() as machine:
        driver, device = started(machine)
        device.echo.keeps = True
        fill(driver, 3)
        returned(machine, driver)
        driver.reset()
        device.echo.release()  # nobody's ring
        driver.start()
        fill(driver, 1)
        assert returned(machine, driver) == []
        assert function_of(machine).queue_counts(0).late == 3
        driver.reset()
        driver.start()
        device.echo.release()  # the ring of another driver, which has nothing in flight
        assert driver.queue(0).completed() == []
        assert function_of(machine).queue_counts(0).late == 4
        assert machine.failures == []


def test_chains_that_the_plane_has_no_room_for_stay_in_the_ring() -> None:
    with SimMachine() as machine:
        driver, device = started(machine)
        device.echo.most = 3
        fill(driver, 5)
        assert len(returned(machine, driver)) == 3
        assert device.queues[0].ring.in_flight == 0
        device.echo.most = -1
        with machine.io_loop("io").held():
            device.echo.release()
        assert len(returned(machine, driver)) == 2


def test_turn_of_a_queue_is_bounded_and_what_is_left_has_the_next_one() -> None:
    with SimMachine() as machine:
        driver, device = started(machine)
        machine.settle()
        device.echo.limit = 1
        fill(driver, 20)
        driver.queue(0).kick()
        loop = machine.io_loop("io")
        loop.step()
        first = len(driver.queue(0).completed())
        assert 0 < first < 10
        machine.settle()  # without another kick
        assert first + len(driver.queue(0).completed()) == 20


def test_driver_that_breaks_its_ring_is_told_the_same_as_by_the_way_through_python() -> None:
    def failure(make: type[VirtioDevice]) -> str:
        with SimMachine() as machine:
            machine.add(make, slot=SLOT)
            driver = machine.driver(SLOT)
            driver.start(0)
            driver.queue(0).send([b"a"], [2], indirect=True)
            driver.queue(0).kick()
            machine.settle()
            assert driver.status & 64
            assert driver.queue(1).transfer([b"abc"], [3]).data == b"cba"  # others go on
            return str(machine.failures[0][1])

    assert failure(Native) == failure(Echo)


def test_queue_that_its_device_fails_is_dead_and_counted_until_the_reset() -> None:
    with SimMachine() as machine:
        driver, device = started(machine)
        device.echo.fails = -5005
        fill(driver, 1)
        assert returned(machine, driver) == []
        assert [str(error) for _, error in machine.failures] == ["[Errno 5005] the host"]
        assert function_of(machine).queue_counts(0).device_errors == 1
        device.echo.fails = 0
        driver.reset()
        driver.start()
        assert driver.queue(0).transfer([b"x"], [1]).data == b"x"


def test_plane_that_returns_a_chain_twice_ends_its_queue() -> None:
    with SimMachine() as machine:
        driver, device = started(machine)
        driver.queue(0).transfer([b"x"], [1])
        with machine.io_loop("io").held():
            device.echo.return_twice(0)
        machine.settle()
        assert [str(error) for _, error in machine.failures] == ["the chain is not in flight"]


def test_pause_keeps_what_the_driver_does_meanwhile() -> None:
    with SimMachine() as machine:
        driver, _ = started(machine)
        returned(machine, driver)
        function_of(machine).data_plane.pause()
        fill(driver, 4)
        assert returned(machine, driver) == []
        function_of(machine).data_plane.resume()
        machine.settle()
        assert len(driver.queue(0).completed()) == 4


@pytest.mark.parametrize("why", ["strict", "python"])
def test_queue_is_served_in_python_where_something_asks_for_that(why: str) -> None:
    with SimMachine(strict=why == "strict", native=why != "python") as machine:
        driver, device = started(machine)
        assert driver.queue(0).transfer([b"abc"], [3]).data == b"cba"
        assert device.python.count(0) > 0


def test_polled_queue_is_looked_at_by_the_timer_and_asks_for_no_kicks() -> None:
    with SimMachine(poll_ns=100_000) as machine:
        driver, device = started(machine, 0)
        machine.io_loop("io").step(1.0)
        fill(driver, 3)
        assert not driver.queue(0).kick()
        done: Sequence[object] = []
        while not done:
            machine.io_loop("io").step(1.0)
            done = driver.queue(0).completed()
        assert len(done) == 3
        assert device.python.count(0) == 0


def test_queue_that_is_reset_alone_is_served_again_and_the_others_never_stopped() -> None:
    """RING_RESET (2.6.1) of a queue with a plane, which has a chain of the old ring in flight."""

    class Resettable(Native):
        def queue_reset(self, queue: Queue) -> None:
            self.calls.append(f"reset {queue.index}")

        def queue_enabled(self, queue: Queue) -> None:
            self.calls.append(f"enabled {queue.index}")

    with SimMachine() as machine:
        machine.add(Resettable, slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start()
        device = machine.device(SLOT, Resettable)
        device.echo.keeps = True
        fill(driver, 1)
        assert returned(machine, driver) == []
        driver.reset_queue(0)
        device.echo.release()
        device.echo.keeps = False
        driver.setup_queue(0)
        assert driver.queue(0).transfer([b"abc"], [3]).data == b"abc"
        assert driver.queue(1).transfer([b"abc"], [3]).data == b"cba"
        assert device.calls == ["start", "reset 0", "enabled 0"]
        assert machine.failures == []
