"""The driver side as plugin authors use it: what it writes, counts and raises."""

import pytest

from acrn_dm.base.errors import GuestError
from acrn_dm.testing import SimMachine, rings
from acrn_dm.testing.driver import PACKED, VERSION_1
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import SLOT, Echo, device_of, machine_with

pytestmark = pytest.mark.both_formats


class Crashes(Echo):
    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            1 / chain.writable_bytes


class Refuses(Echo):
    def handle_queue(self, queue: Queue) -> None:
        if queue.pop_batch():
            raise GuestError("a request without a header")


class FailsAtStart(Echo):
    def start(self, features: int, queues: object) -> None:
        raise OverflowError("no room")


def test_write_config_writes_each_byte_where_it_stands() -> None:
    with machine_with() as machine:
        machine.driver(SLOT).write_config(3, b"abc")
        assert device_of(machine).written == [(3, b"a"), (4, b"b"), (5, b"c")]


def test_write_config_of_a_legacy_driver_goes_through_bar_0() -> None:
    with machine_with() as machine:
        machine.driver_legacy(SLOT).write_config(0, b"z")
        assert device_of(machine).written == [(0, b"z")]


@pytest.mark.parametrize(("slot", "func"), [(3, 0), (4, 0), (4, 5)])
def test_msi_of_each_function_is_counted_apart(slot: int, func: int) -> None:
    with SimMachine(virtio_msi=True) as machine:
        for place in ((3, 0), (4, 0), (4, 5)):
            machine.add(Echo, slot=place[0], func=place[1])
        drivers = {place: machine.driver(*place) for place in ((3, 0), (4, 0), (4, 5))}
        for driver in drivers.values():
            driver.function.enable_msi()
            driver.start()
        drivers[slot, func].queue(0).transfer([b"a"], [1])
        assert {place: d.interrupts(0) for place, d in drivers.items()} == dict.fromkeys(drivers, 0) | {(slot, func): 1}


def test_queue_before_start_says_what_comes_first() -> None:
    with machine_with() as machine, pytest.raises(LookupError, match=r"queue 0: no queue is set up; call start\(\)"):
        machine.driver(SLOT).queue(0)


def test_queue_that_was_left_out_says_which_there_are() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start(queues=[1])
        with pytest.raises(LookupError, match=r"queue 0: queues \[1\] are; "):
            driver.queue(0)


@pytest.mark.parametrize(("device", "error"), [(Crashes, ZeroDivisionError), (Refuses, GuestError)])
def test_transfer_raises_what_the_device_raised(device: type[Echo], error: type[Exception]) -> None:
    with machine_with(device) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        with pytest.raises(error):
            driver.queue(0).transfer([b"a"])


def test_transfer_to_a_device_that_failed_at_its_start_raises_that() -> None:
    with machine_with(FailsAtStart) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        with pytest.raises(OverflowError, match="no room"):
            driver.queue(0).transfer([b"a"], [1])


def test_transfer_does_not_raise_what_another_device_failed_with() -> None:
    with SimMachine() as machine:
        machine.add(Refuses, slot=3)
        machine.add(Crashes, slot=4)
        first, second = machine.driver(3), machine.driver(4)
        first.start()
        second.start()
        with pytest.raises(ZeroDivisionError):
            second.queue(0).transfer([b"a"])
        with pytest.raises(GuestError):
            first.queue(0).transfer([b"a"])
        with pytest.raises(ZeroDivisionError):
            second.queue(1).transfer([b"a"])


@pytest.mark.split_rings("chooses both formats itself")
def test_drivers_use_the_rings_that_they_are_made_within() -> None:
    with SimMachine() as machine:
        machine.add(Echo, slot=SLOT)
        for form, there in (("packed", True), ("split", False)):
            with rings(form):
                driver = machine.driver(SLOT)
            for accepted in (None, VERSION_1):
                assert bool(driver.start(accepted) & PACKED) is there
                assert driver.queue(0).transfer([b"abc"], [3]).data == b"cba"
    with pytest.raises(ValueError, match="no ring format"), rings("round"):
        pass
