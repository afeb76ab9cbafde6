"""Queues that are reset and set up again one by one (RING_RESET), by every way in which a device can let go of one."""

from collections.abc import Iterator

import pytest

from acrn_dm.base.errors import ConfigError, GuestError
from acrn_dm.contract.types import DeviceContext
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import RING_RESET
from acrn_dm.virtio.queue import Queue
from acrn_dm.virtio.switches import SWITCHES
from tests.virtio.parts import SLOT, Echo, Holding, device_of, machine_with
from tests.virtio.pause import pause, resume

pytestmark = pytest.mark.both_formats(fast=True)

NEEDS_RESET = 64


class OneByOne(Holding):
    """Lets go of one queue; ``stuck`` are queues whose requests are in the host yet."""

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        self.stuck: set[int] = set()

    def queue_reset(self, queue: Queue) -> None:
        self.calls.append(f"reset {queue.index}")

    def queue_enabled(self, queue: Queue) -> None:
        self.calls.append(f"enabled {queue.index}")
        self.queues = [*(q for q in self.queues if q.index != queue.index), queue]

    def queue_busy(self, index: int) -> bool:
        return index in self.stuck


WAYS = {"stopped and started": (Echo, "vbs-u"), "kernel": (Echo, "vhost")}


@pytest.fixture(params=WAYS)
def driver(request: pytest.FixtureRequest) -> Iterator[VirtioDriver]:
    device, backend = WAYS[request.param]
    with machine_with(device, backend=backend) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        yield driver


def states(driver: VirtioDriver, index: int) -> tuple[int, int]:
    driver.registers.write("queue_select", index)
    return driver.registers.read("queue_reset"), driver.registers.read("queue_enable")


def ask(driver: VirtioDriver, index: int) -> tuple[int, int]:
    """Ask for a queue's reset; what its two registers read then."""
    driver.registers.write("queue_select", index)
    driver.registers.write("queue_reset", 1)
    return states(driver, index)


def test_reset_queue_comes_back_elsewhere_and_smaller_while_the_other_goes_on(driver: VirtioDriver) -> None:
    for size in (8, 64, 16):
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"
        driver.reset_queue(0)
        assert driver.queue(1).transfer([b"cd"], [2]).data == b"dc"
        driver.setup_queue(0, size=size)
        for _ in range(3 * size):
            assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"
    assert not driver.status & NEEDS_RESET


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_kick_of_a_reset_queue_is_nobody_s(driver: VirtioDriver) -> None:
    old = driver.queue(0)
    driver.reset_queue(0)
    old.send([b"ab"], [2])
    driver.registers.notify(0)
    driver.machine.settle()
    assert old.ring.used_idx() == 0
    assert driver.queue_interrupts(0) == 0


def test_registers_are_as_after_power_on_and_can_be_written_again(driver: VirtioDriver) -> None:
    driver.reset_queue(1)
    registers = driver.registers
    assert registers.queue_size(1) == 16
    assert registers.read("queue_msix_vector") == 0xFFFF
    registers.write("queue_size", 4)
    assert registers.queue_size(1) == 4
    registers.queue_size(0)
    registers.write("queue_size", 4)
    assert registers.queue_size(0) == 64, "a queue that runs keeps its size"


def test_all_queues_can_be_away_and_come_back(driver: VirtioDriver) -> None:
    for index in (0, 1):
        driver.reset_queue(index)
    for index in (1, 0):
        driver.setup_queue(index)
        assert driver.queue(index).transfer([b"ab"], [2]).data == b"ba"


def test_device_reset_while_a_queue_is_away(driver: VirtioDriver) -> None:
    driver.reset_queue(0)
    driver.start()
    assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


def test_pause_while_a_queue_is_away(driver: VirtioDriver) -> None:
    function = driver.machine.bus.functions[0]
    driver.reset_queue(0)
    pause(function)
    resume(function)
    assert driver.queue(1).transfer([b"ab"], [2]).data == b"ba"
    driver.setup_queue(0)
    assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


def test_nothing_is_bound_of_a_reset_queue(driver: VirtioDriver) -> None:
    vm = driver.machine.vm
    kicks, calls = len(vm.kicks.bindings), len(vm.interrupts.bindings)
    driver.reset_queue(0)
    assert (len(vm.kicks.bindings), len(vm.interrupts.bindings)) == (kicks - 1, calls - 1)
    driver.setup_queue(0)
    assert (len(vm.kicks.bindings), len(vm.interrupts.bindings)) == (kicks, calls)


def test_without_the_feature_queue_reset_is_no_register() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start(0)
        assert ask(driver, 0) == (0, 1)
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


@pytest.mark.parametrize("value", [0, 2, 0xFFFF])
def test_only_1_resets(value: int) -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.registers.write("queue_select", 0)
        driver.registers.write("queue_reset", value)
        assert states(driver, 0) == (0, 1)


def test_queue_that_was_never_reset_can_not_join_a_device_that_runs() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start(queues=[0])
        driver.setup_queue(1)
        assert states(driver, 1) == (0, 0)


def test_device_is_told_of_the_one_queue_and_not_stopped() -> None:
    with machine_with(OneByOne) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.reset_queue(1)
        driver.setup_queue(1)
        machine.settle()
        assert device_of(machine).calls == ["start", "reset 1", "enabled 1"]


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_late_completion_of_a_reset_queue_is_void() -> None:
    with machine_with(OneByOne) as machine:
        device: OneByOne = device_of(machine)  # type: ignore[assignment]
        driver = machine.driver(SLOT)
        driver.start()
        old = driver.queue(0)
        token = old.send([b"ab"], [4])
        old.kick()
        machine.settle()
        driver.registers.write("queue_select", 0)
        driver.registers.write("queue_reset", 1)
        driver.setup_queue(0)
        device.complete()
        machine.settle()
        assert (token, old.ring.used_idx(), driver.queue(0).ring.used_idx()) == (0, 0, 0)
        assert driver.queue_interrupts(0) == 0
        assert machine.failures == []


def test_queue_reset_reads_1_while_the_host_has_something_of_the_queue() -> None:
    with machine_with(OneByOne) as machine:
        device: OneByOne = device_of(machine)  # type: ignore[assignment]
        driver = machine.driver(SLOT)
        driver.start()
        device.stuck = {0}
        assert ask(driver, 0) == (1, 1)
        driver.registers.write("queue_enable", 1)
        driver.registers.write("queue_size", 8)
        assert states(driver, 0) == (1, 1)
        assert driver.registers.queue_size(0) == 64
        assert ask(driver, 1) == (0, 0)
        device.stuck = set()
        assert states(driver, 0) == (0, 0)


def test_device_reset_ends_a_queue_reset_that_is_under_way() -> None:
    with machine_with(OneByOne) as machine:
        device: OneByOne = device_of(machine)  # type: ignore[assignment]
        driver = machine.driver(SLOT)
        driver.start()
        device.stuck = {0}
        ask(driver, 0)
        driver.reset()
        assert states(driver, 0) == (0, 0)
        driver.start()
        assert states(driver, 0) == (0, 1)


def test_ring_that_can_not_be_costs_the_driver_a_reset_when_it_comes_back() -> None:
    with machine_with(OneByOne) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.reset_queue(0)
        driver.registers.queue_size(0)
        for name in ("queue_desc", "queue_driver", "queue_device"):
            driver.registers.write(name, 0xFFFF_FFFF_FFFF_FFF0)
        driver.registers.write("queue_enable", 1)
        assert driver.status & NEEDS_RESET
        assert isinstance(machine.failures[0][1], GuestError)
        driver.start()
        assert not driver.status & NEEDS_RESET


def test_feature_can_be_switched_off() -> None:
    with SimMachine() as machine:
        machine.add("virtio-console", "@pty:con,queue_reset=off", slot=SLOT)
        assert not machine.driver(SLOT).registers.offered() & RING_RESET


@pytest.mark.parametrize("word", ["maybe", "", "1"])
def test_other_words_than_on_and_off_are_refused(word: str) -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="expected on or off"):
        machine.add("virtio-console", f"@pty:con,queue_reset={word}", slot=SLOT)


def test_device_that_is_no_virtio_device_has_no_such_switch() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="no virtio device"):
        machine.add("hostbridge", "queue_reset=off", slot=SLOT)


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("on", [True, False])
def test_each_switch_has_its_bit(name: str, on: bool) -> None:
    with SimMachine() as machine:
        machine.add("virtio-console", f"@pty:con,{name}={'on' if on else 'off'}", slot=SLOT)
        assert bool(machine.driver(SLOT).registers.offered() & SWITCHES[name]) is on
