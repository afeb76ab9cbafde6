"""Virtio devices of ours behind ``vfio-user``: their drivers find what they find without another process."""

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing import SimMachine, VirtioDriver
from tests.backends.user.user_rig import eventually
from tests.devices.vfio_user.remote_rig import SLOT, attached

SECTOR = 512


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[SimMachine, Path]]:
    image = tmp_path / "image"
    image.write_bytes(bytes(range(256)) * 2 * 64)
    with attached(f"virtio-blk,mq=2,{image}", tmp_path / "s") as machine:
        yield machine, image


@attrs.define
class Requests:
    """A disk's driver that has one request out at a time."""

    machine: SimMachine
    driver: VirtioDriver
    done: Counter[int] = attrs.field(factory=Counter)

    def read(self, queue: int, sector: int) -> bytes:
        """The data that was read, and the status."""
        return self._do(queue, [struct.pack("<IIQ", 0, 0, sector)], [SECTOR, 1])

    def write(self, queue: int, sector: int, data: bytes) -> bytes:
        """The status."""
        return self._do(queue, [struct.pack("<IIQ", 1, 0, sector), data], [1])

    def _do(self, queue: int, out: list[bytes], in_: list[int]) -> bytes:
        asked = self.driver.queue(queue)
        asked.send(out, in_)
        asked.kick()
        self.done[queue] += 1
        eventually(self.machine, lambda: asked.ring.used_idx() == self.done[queue])
        (done,) = asked.completed()
        return done.data


@pytest.mark.parametrize("msix", [True, False])
def test_disk_is_read_and_written(msix: bool, disk: tuple[SimMachine, Path]) -> None:
    machine, image = disk
    driver = machine.driver(SLOT, msix=msix)
    driver.start()
    requests = Requests(machine, driver)
    for queue in (0, 1):
        assert requests.read(queue, 3) == bytes(range(256)) * 2 + b"\0"
        assert requests.write(queue, 8 + queue, bytes([queue + 1]) * SECTOR) == b"\0"
    assert requests.read(0, 9) == b"\2" * SECTOR + b"\0"
    assert image.read_bytes()[8 * SECTOR : 10 * SECTOR] == b"\1" * SECTOR + b"\2" * SECTOR
    if msix:
        eventually(machine, lambda: len(machine.interrupts) == 2)  # of each queue, one at least
    assert machine.failures == []


def test_driver_starts_again_after_a_reset_of_device_and_machine(disk: tuple[SimMachine, Path]) -> None:
    machine, _ = disk
    for way in ("first", "device", "machine"):
        if way == "machine":
            machine.reset()
        driver = machine.driver(SLOT)
        driver.start()
        assert Requests(machine, driver).read(0, 3) == bytes(range(256)) * 2 + b"\0"
        driver.reset()


def test_entropy_is_what_its_process_gives(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"of the other process" * 100)
    with attached(f"virtio-rnd,source={source}", tmp_path / "s") as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.queue(0).send([], [20])
        driver.queue(0).kick()
        eventually(machine, lambda: driver.queue(0).ring.used_idx() == 1)
        assert [done.data for done in driver.queue(0).completed()] == [b"of the other process"]
        eventually(machine, lambda: sum(machine.interrupts.values()) >= 1)
