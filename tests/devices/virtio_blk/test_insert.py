"""A medium for a slot that began with ``nodisk``."""

import struct
from pathlib import Path

import pytest

from acrn_dm.base.errors import AcrnDmError, ConfigError
from acrn_dm.devices.virtio_blk import acrn_dm_device_types
from acrn_dm.testing import SimMachine
from tests.devices.virtio_blk.blk_rig import IN, IOERR, OK, Disk, disk, image

pytestmark = pytest.mark.usefixtures("each_aio")


def insert(d: Disk, text: str) -> None:
    function = d.machine.bus.functions[-1]
    with function.lock:
        d.device.insert_medium(text)
    d.machine.settle()


def test_inserted_medium_is_announced_and_works(tmp_path: Path) -> None:
    with disk("nodisk") as d:
        assert d.request(IN, 0, room=512).data[-1] == IOERR
        before = d.driver.config_interrupts
        insert(d, str(image(tmp_path, sectors=64)))
        assert d.driver.config_interrupts == before + 1
        assert struct.unpack("<Q", d.driver.read_config(0, 8)) == (64,)
        assert d.read(5)[:8] == struct.pack("<Q", 5)
        assert d.write(5, b"x" * 512) == OK
    assert (tmp_path / "disk.img").read_bytes()[5 * 512 : 6 * 512] == b"x" * 512


def test_read_only_medium_refuses_writes(tmp_path: Path) -> None:
    with disk("nodisk") as d:
        insert(d, f"{image(tmp_path)},ro")
        assert d.read(0)
        assert d.write(0, bytes(512)) == IOERR


def test_medium_stays_over_a_reset_of_the_device(tmp_path: Path) -> None:
    with disk("nodisk") as d:
        insert(d, str(image(tmp_path)))
        d.driver.start()
        assert d.read(7)[:8] == struct.pack("<Q", 7)


def test_slot_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d:
        with pytest.raises(ConfigError, match="has a disk already"):
            insert(d, str(image(tmp_path, name="other.img")))
        assert d.read(3)[:8] == struct.pack("<Q", 3)


@pytest.mark.parametrize("text", ["", "nodisk", "/absent.img", "/proc", "/x,frobnicate", "a" * 5000])
def test_medium_that_can_not_be_had_leaves_the_slot_empty(tmp_path: Path, text: str) -> None:
    with disk("nodisk") as d:
        with pytest.raises((AcrnDmError, OSError)):
            insert(d, text)
        assert d.device.image is None
        assert d.request(IN, 0, room=512).data[-1] == IOERR
        insert(d, str(image(tmp_path)))
        assert d.read(1)


def test_queues_and_threads_stay_those_of_the_start(tmp_path: Path) -> None:
    with SimMachine() as machine:
        function = machine.add(acrn_dm_device_types()[0], "nodisk", slot=3)
        machine.start()
        with function.lock:
            function.device.insert_medium(f"mq=4,{image(tmp_path)}")  # type: ignore[attr-defined]
        assert function.device.config.mq == 1  # type: ignore[attr-defined]
