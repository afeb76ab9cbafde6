"""The disk below a driver of a guest's, by its engine and without, and its options."""

import struct
from collections.abc import Iterator

import acrn_dm_ram_disk
import pytest

from acrn_dm import ConfigError
from acrn_dm.testing import BlockBench, SimMachine, VirtioDriver

DATA = bytes(range(256)) * 16
IN, OUT, FLUSH, DISCARD, ZEROES = 0, 1, 4, 11, 13
OK, IOERR = b"\0", b"\1"


def header(kind: int, sector: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


@pytest.fixture(params=["engine", "python", "legacy"])
def driver(request: pytest.FixtureRequest) -> Iterator[VirtioDriver]:
    """A driver of a disk of a megabyte: with engines, without, and one whose requests engines are not asked for."""
    with SimMachine(plugins=[acrn_dm_ram_disk], native=request.param != "python") as machine:
        machine.add("virtio-blk", "driver=ram,size=1M,mq=2,discard", slot=3)
        made = machine.driver_legacy(3) if request.param == "legacy" else machine.driver(3)
        made.start()
        yield made


def test_guest_reads_what_it_wrote(driver: VirtioDriver) -> None:
    queue = driver.queue(0)
    assert queue.transfer([header(OUT, 8), DATA[:100], DATA[100:]], [1]).data == OK
    assert queue.transfer([header(FLUSH)], [1]).data == OK
    assert queue.transfer([header(IN, 7)], [700, 4096 + 512 - 700, 1]).data == bytes(512) + DATA + OK


def test_queues_share_the_disk_and_ranges_are_done(driver: VirtioDriver) -> None:
    queue = driver.queue(0)
    queue.transfer([header(OUT, 8), DATA], [1])
    for kind in (ZEROES, DISCARD):
        assert queue.transfer([header(kind), struct.pack("<QII", 8, 1, 0)], [1]).data == OK
    assert queue.transfer([header(IN, 8)], [4096, 1]).data == bytes(512) + DATA[512:] + OK


def test_request_behind_the_end_is_an_error(driver: VirtioDriver) -> None:
    assert driver.queue(0).transfer([header(IN, 2047)], [1024, 1]).data[-1:] == IOERR


def test_queue_with_an_engine_is_served_without_python() -> None:
    with SimMachine(plugins=[acrn_dm_ram_disk]) as machine:
        machine.add("virtio-blk", "driver=ram", slot=3)
        driver = machine.driver(3)
        driver.start()
        for sector in range(50):
            driver.queue(0).send([header(OUT, sector), DATA[:512]], [1])
        driver.queue(0).kick()
        machine.settle()
        assert len(driver.queue(0).completed()) == 50
        (function,) = machine.bus.functions
        assert function.device._planes._served[0].plane.service.engine is not None  # type: ignore[attr-defined]
        assert function.device._pools[0]._threads == []  # type: ignore[attr-defined]


def test_disk_is_empty_again_at_the_next_start() -> None:
    for _ in range(2):
        with BlockBench("ram,size=64k", plugins=[acrn_dm_ram_disk]) as disk:
            assert disk.read(0, 65536) == bytes(65536)
            disk.write(0, DATA)


def test_discarded_pages_read_as_zeroes_and_their_neighbours_stay() -> None:
    with BlockBench("ram,size=64k", plugins=[acrn_dm_ram_disk]) as disk:
        disk.write(0, b"x" * 65536)
        disk.discard(512, 3 * 4096)
        assert disk.read(0, 65536) == b"x" * 4096 + bytes(2 * 4096) + b"x" * (65536 - 3 * 4096)


@pytest.mark.parametrize("size", ["0", "100", "x"])
def test_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(ConfigError, match="size"):
        BlockBench(f"ram,size={size}", plugins=[acrn_dm_ram_disk])
