"""The entropy device under a driver, without a virtual machine."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_rng
import pytest

from acrn_dm import ConfigError, HostError
from acrn_dm.testing import SimMachine, VirtioDriver, assert_device_conforms

NEEDS_RESET = 64


def machine() -> SimMachine:
    return SimMachine(plugins=[acrn_dm_rng])


@pytest.fixture
def driver() -> Iterator[VirtioDriver]:
    """A started device on /dev/urandom."""
    with machine() as m:
        m.add("virtio-rnd", slot=3)
        driver = m.driver(3)
        driver.start()
        yield driver


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[SimMachine, VirtioDriver, int]]:
    """A started device on a FIFO, and the FIFO's other end."""
    path = tmp_path / "source"
    os.mkfifo(path)
    with machine() as m:
        m.add("virtio-rng", f"source={path}", slot=3)
        driver = m.driver(3)
        writer = os.open(path, os.O_WRONLY)
        driver.start()
        yield m, driver, writer
        os.close(writer)


@pytest.mark.stress
def test_device_conforms() -> None:
    kind = next(iter(acrn_dm_rng.acrn_dm_device_types()))
    assert_device_conforms(lambda machine: machine.add(kind, slot=3))


@pytest.mark.parametrize("sizes", [[1], [64], [3, 5, 8], [4096]])
def test_rng_at_least_one_buffer_is_filled(driver: VirtioDriver, sizes: list[int]) -> None:
    done = driver.queue(0).transfer([], sizes)
    assert done.written == sum(sizes)


def test_bytes_differ_between_buffers(driver: VirtioDriver) -> None:
    assert driver.queue(0).transfer([], [32]).data != driver.queue(0).transfer([], [32]).data


def test_rng_partial_huge_buffer_is_filled_in_part(driver: VirtioDriver) -> None:
    done = driver.queue(0).transfer([], [300_000])
    assert done.written == acrn_dm_rng.CHUNK
    assert done.data[done.written :] == b"\xa5" * (300_000 - done.written)


def test_legacy_driver_is_served() -> None:
    with machine() as m:
        m.add("virtio-rnd", slot=3)
        legacy = m.driver_legacy(3)
        legacy.start()
        assert legacy.queue(0).transfer([], [16]).written == 16


def test_buffer_without_room_comes_back_empty(driver: VirtioDriver) -> None:
    assert driver.queue(0).transfer([b"readable"], []).written == 0


def test_more_buffers_than_one_batch_are_all_filled(driver: VirtioDriver) -> None:
    for _ in range(60):
        driver.queue(0).send([], [8])
    driver.queue(0).kick()
    driver.machine.settle()
    assert [done.written for done in driver.queue(0).completed()] == [8] * 60


def test_buffers_wait_for_a_slow_source(slow: tuple[SimMachine, VirtioDriver, int]) -> None:
    m, driver, writer = slow
    for _ in range(3):
        driver.queue(0).send([], [4])
        driver.queue(0).kick()
    m.settle()
    assert driver.queue(0).completed() == []
    os.write(writer, b"abcdefgh")
    m.settle()
    assert [done.data for done in driver.queue(0).completed()] == [b"abcd", b"efgh"]
    os.write(writer, b"i")
    m.settle()
    assert [done.written for done in driver.queue(0).completed()] == [1]


def test_row_82_reset_while_the_source_is_slow_forgets_the_buffers(slow: tuple[SimMachine, VirtioDriver, int]) -> None:
    m, driver, writer = slow
    driver.queue(0).send([], [4])
    driver.queue(0).kick()
    m.settle()
    driver.reset()
    os.write(writer, b"late")
    m.settle()
    driver.start()
    assert driver.queue(0).transfer([], [4]).data == b"late"


def test_slow_source_that_ends_asks_for_a_reset(tmp_path: Path) -> None:
    path = tmp_path / "source"
    os.mkfifo(path)
    with machine() as m:
        m.add("virtio-rnd", f"source={path}", slot=3)
        driver = m.driver(3)
        writer = os.open(path, os.O_WRONLY)
        driver.start()
        driver.queue(0).send([], [4])
        driver.queue(0).kick()
        m.settle()
        os.close(writer)
        m.settle()
        assert driver.status & NEEDS_RESET


def test_source_that_ends_asks_for_a_reset(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"1234")
    with machine() as m:
        m.add("virtio-rnd", f"source={path}", slot=3)
        driver = m.driver(3)
        driver.start()
        assert driver.queue(0).transfer([], [8]).data[:4] == b"1234"
        driver.queue(0).send([], [8])
        driver.queue(0).kick()
        m.settle()
        assert driver.status & NEEDS_RESET
        assert [type(error) for _, error in m.failures] == [HostError]


def test_kernel_option_is_accepted_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with machine() as m, caplog.at_level(logging.WARNING):
        m.add("virtio-rnd", "kernel=on", slot=3)
        m.driver(3).start()
    assert "kernel=on" in caplog.text


def test_check_names_a_missing_source() -> None:
    with machine() as m:
        lines = m.add("virtio-rnd", "source=/nosuch", slot=3).check()
    assert lines == ["virtio-rnd-3:0: source /nosuch can't be read"]


def test_missing_source_is_an_error_at_realize() -> None:
    with machine() as m:
        m.add("virtio-rnd", "source=/nosuch", slot=3)
        with pytest.raises(HostError, match="/nosuch"):
            m.start()


def test_unknown_option_is_named() -> None:
    with machine() as m, pytest.raises(ConfigError, match="bogus"):
        m.add("virtio-rnd", "bogus=1", slot=3)
