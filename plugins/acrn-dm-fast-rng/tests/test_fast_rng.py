"""The entropy device under a driver: in C and in Python, whole and hostile."""

from collections.abc import Iterator

import acrn_dm_fast_rng as plugin
import pytest
from acrn_dm_fast_rng import CHUNK

from acrn_dm.testing import SimMachine, VirtioDriver, assert_device_conforms

NAME, SLOT = "virtio-fast-rng", 3
WAYS = pytest.mark.parametrize("native", [True, False], ids=["c", "python"])


@pytest.fixture
def machine(native: bool) -> Iterator[SimMachine]:
    with SimMachine(plugins=[plugin], native=native) as machine:
        machine.add(NAME, slot=SLOT)
        yield machine


def started(machine: SimMachine) -> VirtioDriver:
    driver = machine.driver(SLOT)
    driver.start()
    return driver


@WAYS
@pytest.mark.parametrize("sizes", [[64], [1, 63], [100, 28, 300]])
def test_buffers_come_back_full_of_bytes_that_differ(machine: SimMachine, sizes: list[int]) -> None:
    driver = started(machine)
    seen = [driver.queue(0).transfer([], sizes) for _ in range(3)]
    assert {done.written for done in seen} == {sum(sizes)}
    assert len({done.data for done in seen}) == 3


@WAYS
def test_large_buffer_gets_a_part_and_nothing_behind_it(machine: SimMachine) -> None:
    done = started(machine).queue(0).transfer([], [CHUNK - 10, 100])
    assert done.written == CHUNK
    assert done.data[CHUNK:] == b"\xa5" * 90


@WAYS
def test_buffer_without_room_comes_back(machine: SimMachine) -> None:
    assert started(machine).queue(0).transfer([b"abc"], []).written == 0


@WAYS
def test_more_buffers_than_a_batch_come_back(machine: SimMachine) -> None:
    driver = started(machine)
    for _ in range(60):
        driver.queue(0).send([], [8])
    driver.queue(0).kick()
    machine.settle()
    assert [done.written for done in driver.queue(0).completed()] == [8] * 60


@pytest.mark.parametrize("native", [True])
def test_queue_is_served_without_python(machine: SimMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("Python was asked")

    monkeypatch.setattr(plugin.FastRngDevice, "handle_queue", never)
    started(machine).queue(0).transfer([], [16])
    counts = machine.queue_counts(SLOT, 0)
    assert (counts.returned, counts.bytes_in) == (1, 16)


@pytest.mark.stress
def test_device_conforms() -> None:
    (kind,) = plugin.acrn_dm_device_types()
    assert_device_conforms(lambda machine: machine.add(kind, slot=SLOT))
