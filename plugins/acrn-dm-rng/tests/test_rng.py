"""acrn_dm_rng, driven like a guest drives it: over PCI, without a VM."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from acrn_dm_rng import MOST_BYTES, RngOptions, VirtioRng, acrn_dm_device_types

from acrn_dm import Bdf, DeviceContext, DeviceType
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.conformance import CHECKS, Check


def rng() -> DeviceType:
    (device_type,) = acrn_dm_device_types()
    return device_type


@pytest.fixture
def driver() -> Iterator[VirtioDriver]:
    with SimMachine() as machine:
        machine.add(rng(), slot=3)
        driver = machine.driver(3)
        driver.start()
        yield driver


def test_posted_buffer_comes_back_full_of_different_bytes(driver: VirtioDriver) -> None:
    first, second = (driver.queue(0).transfer([], [64]) for _ in range(2))
    assert (first.written, second.written) == (64, 64)
    assert first.data != second.data
    assert first.data != bytes(64)


def test_bytes_are_those_of_the_source() -> None:
    with SimMachine() as machine:
        machine.add(rng(), "source=/dev/zero", slot=3)
        driver = machine.driver(3)
        driver.start()
        assert driver.queue(0).transfer([], [16, 16]).data == bytes(32)


def test_huge_buffer_gets_a_bounded_share(driver: VirtioDriver) -> None:
    assert driver.queue(0).transfer([], [4 * MOST_BYTES]).written == MOST_BYTES


def test_buffer_without_room_comes_back_empty(driver: VirtioDriver) -> None:
    assert driver.queue(0).transfer([b"read me"], []).written == 0


def test_legacy_driver_gets_bytes_too() -> None:
    with SimMachine() as machine:
        machine.add(rng(), slot=3)
        driver = machine.driver_legacy(3)
        driver.start()
        assert driver.queue(0).transfer([], [32]).written == 32


@pytest.mark.parametrize("path", ["/nonexistent/random", os.devnull + "/x", "/"])
def test_source_that_is_no_character_device_is_reported(path: str) -> None:
    device = VirtioRng(RngOptions(source=Path(path)), DeviceContext(bdf=Bdf(slot=6), kind="virtio-rnd"))
    assert "is no character device" in device.check()[0]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_conforms(check: Check) -> None:
    check(lambda machine: machine.add(rng(), slot=3))
