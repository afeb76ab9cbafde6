"""The built-in drivers: a disk on one is a disk on the path, and below another driver it is a file."""

import contextlib
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.devices.virtio_blk.drivers.file import DRIVERS
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.image.backend_direct import DirectImage
from acrn_dm.testing import BlockBench, SimMachine
from tests.devices.virtio_blk.blk_rig import FLUSH, OK, disk, image

PATTERN = bytes(range(256)) * 2


@pytest.mark.parametrize("name", DRIVERS)
def test_disk_on_a_file_driver_is_served_by_its_engine(tmp_path: Path, name: str) -> None:
    with disk(f"driver={name},path={image(tmp_path)},mq=1,cache=writeback") as d:
        assert d.write(3, PATTERN) == OK
        assert d.read(3) == PATTERN
        assert d.request(FLUSH).data[-1] == OK
        assert type(d.device.image) is Image
        assert d.device.config.aio == DRIVERS[name][0]
        served = [s.plane.service.engine for s in d.device._planes._served]
        expected = {"io_uring": ("UringEngine", "PoolEngine"), "threads": ("PoolEngine",)}  # no io_uring: threads
        assert [type(engine).__name__ in expected[name] for engine in served] == ([True] if name in expected else [])


def test_options_of_the_file_are_the_path_s(tmp_path: Path) -> None:
    with disk(f"driver=file,path={image(tmp_path)},range=8/16,share=on") as d:
        assert int.from_bytes(d.driver.read_config(0, 8), "little") == 16
        assert d.read(0)[:8] == (8).to_bytes(8, "little")


def test_cache_can_be_passed_by(tmp_path: Path) -> None:
    with contextlib.suppress(OSError), disk(f"driver=file,path={image(tmp_path)},nocache") as d:
        assert type(d.device.image) is DirectImage


def test_two_disks_on_one_file_are_refused_however_they_name_it(tmp_path: Path) -> None:
    path = image(tmp_path)
    with SimMachine() as machine:
        claims = [
            machine.add("virtio-blk", text, slot=slot).device.claims()[0]  # type: ignore[attr-defined]
            for slot, text in enumerate([str(path), f"driver=threads,path={path}"], 3)
        ]
        assert claims[0].key == claims[1].key
        assert claims[0].access.excludes(claims[1].access)


def test_file_below_another_driver_is_locked_as_any(tmp_path: Path) -> None:
    path = image(tmp_path)
    with BlockBench(f"file,path={path}"), pytest.raises(ConfigError, match="in use"):
        BlockBench(f"threads,path={path}")
    with BlockBench(f"file,path={path}", read_only=True) as one, BlockBench(f"file,path={path}", read_only=True) as two:
        assert one.read(512, 8) == two.read(512, 8) == (1).to_bytes(8, "little")


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with SimMachine() as machine:
        device = machine.add("virtio-blk", f"driver=file,path={tmp_path / 'absent'}", slot=3).device  # type: ignore[attr-defined]
        assert device.check() == [f"virtio-blk-3:0: image {tmp_path / 'absent'} does not exist"]
