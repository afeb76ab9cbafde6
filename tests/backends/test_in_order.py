"""Chains that go back in order (IN_ORDER): the stage in front of a ring, and a disk and a card that have it."""

from pathlib import Path
from typing import Any

import acrn_dm_gpio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm import DeviceContext
from acrn_dm.backends.in_order import InOrderRing
from acrn_dm.base.errors import ConfigError
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import IN_ORDER, PACKED, VERSION_1
from acrn_dm.virtio.queue import Queue
from tests.devices.virtio_blk.blk_rig import FLUSH, GET_ID, disk, header, image
from tests.virtio.parts import SLOT, Echo, Holding, device_of, machine_with
from tests.virtio.pause import pause, resume


class Keeps(Holding):
    """Offers what a user has switched on."""

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        object.__setattr__(context, "switches", {"in_order": True})

    def push(self, at: int, written: int = 0) -> None:
        queue, chain = self.held[at]
        queue.push(chain, written)
        queue.flush()


def started(machine: SimMachine, chains: int, features: int = VERSION_1 | IN_ORDER) -> tuple[Keeps, VirtioDriver]:
    driver = machine.driver(SLOT)
    driver.start(features)
    for _ in range(chains):
        driver.queue(0).send([b"ab"], [4])
    driver.queue(0).kick()
    machine.settle()
    device = device_of(machine)
    assert isinstance(device, Keeps)
    return device, driver


def came(driver: VirtioDriver) -> list[int]:
    return [one.token for one in driver.queue(0).completed()]


@pytest.mark.parametrize("packed", [0, PACKED], ids=["split", "packed"])
@given(order=st.permutations(range(7)))
def test_row_30_chains_come_back_in_order_in_whatever_order_they_are_done(packed: int, order: list[int]) -> None:
    """QEMU 6fcf5ebafa: off by one, and a search without a bound."""
    with machine_with(Keeps) as machine:
        device, driver = started(machine, 7, VERSION_1 | IN_ORDER | packed)
        seen: list[int] = []
        for done, at in enumerate(order, 1):
            device.push(at, written=at % 5)
            new = [(one.token, one.written) for one in driver.queue(0).completed()]
            assert new == [(n, n % 5) for n in range(len(seen), len(seen) + len(new))]
            seen += [token for token, _ in new]
            ready = set(order[:done])
            assert len(seen) == next(n for n in range(8) if n not in ready), "all that can go back have gone"
        assert seen == list(range(7))


def test_what_waits_causes_no_interrupt_and_one_comes_for_all() -> None:
    with machine_with(Keeps) as machine:
        device, driver = started(machine, 3)
        device.push(2)
        device.push(1)
        machine.settle()
        assert driver.queue_interrupts(0) == 0
        device.push(0)
        machine.settle()
        assert driver.queue_interrupts(0) == 1
        assert came(driver) == [0, 1, 2]


def test_without_the_feature_they_come_as_they_are_done() -> None:
    with machine_with(Keeps) as machine:
        device, driver = started(machine, 2, features=VERSION_1)
        device.push(1)
        assert came(driver) == [1]


def test_chain_that_waits_is_no_longer_the_device_s() -> None:
    with machine_with(Keeps) as machine:
        device, _ = started(machine, 2)
        device.push(1)
        queue, chain = device.held[1]
        with pytest.raises(ValueError, match="no longer in flight"):
            queue.push(chain, 0)
        with pytest.raises(ValueError, match="no longer in flight"):
            queue.unpop([chain])


def test_more_bytes_than_fit_are_refused_at_once() -> None:
    with machine_with(Keeps) as machine:
        device, driver = started(machine, 2)
        with pytest.raises(ValueError, match="5 bytes written"):
            device.push(1, written=5)
        device.push(0)
        device.push(1)
        assert came(driver) == [0, 1]


def test_chains_given_back_are_taken_again_in_their_place() -> None:
    with machine_with(Keeps) as machine:
        device, driver = started(machine, 3)
        queue = device.held[0][0]
        queue.unpop([chain for _, chain in device.held[1:]])
        device.held[1:] = [(queue, chain) for chain in queue.pop_batch()]
        for at in (2, 0, 1):
            device.push(at)
        assert came(driver) == [0, 1, 2]


def test_what_waits_when_the_device_pauses_is_served_again() -> None:
    """Its driver has not seen that it was done."""
    with machine_with(Keeps) as machine:
        device, driver = started(machine, 3)
        device.push(0)
        device.push(2)
        device.held.clear()
        pause(machine.bus.functions[0])
        resume(machine.bus.functions[0])
        machine.settle()
        assert len(device.held) == 2
        for at in (1, 0):
            device.push(at)
        assert came(driver) == [0, 1, 2]


def test_disk_that_is_told_to_answers_a_flush_before_what_came_after_it(tmp_path: Path) -> None:
    for text, wanted in (("", False), (",in_order=on", True)):
        with disk(f"{image(tmp_path)}{text}") as d:
            assert bool(d.driver.features & IN_ORDER) is wanted
            if not wanted:
                continue
            for n in range(20):
                d.queue.send([header(GET_ID if n % 2 else FLUSH)], [20, 1] if n % 2 else [1])
            d.queue.kick()
            d.machine.settle()
            assert [one.token for one in d.queue.completed()] == list(range(20))


def test_device_that_keeps_order_by_itself_has_no_stage_in_front_of_its_ring() -> None:
    class Straight(Echo):
        in_order = True

    with machine_with(Straight) as machine:
        driver = machine.driver(SLOT)
        assert driver.start() & IN_ORDER
        queues: list[Queue] = list(device_of(machine).queues)
        assert not any(isinstance(queue.ring, InOrderRing) for queue in queues)


def test_device_whose_requests_can_not_wait_refuses_the_switch() -> None:
    (kind,) = acrn_dm_gpio.acrn_dm_device_types()
    options: Any = "count=4,line=led,in_order=on"
    with SimMachine() as machine, pytest.raises(ConfigError, match="can't wait for one another"):
        machine.add(kind, options, slot=SLOT)
