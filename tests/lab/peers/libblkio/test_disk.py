"""An exported disk under libblkio, as programs that are no virtual machine use it: 32 requests under way on each queue,
and all that is read is compared. How long, for each number of queues: ``BLKIO_S`` seconds.

libblkio speaks split rings only; packed ones are those of testpmd and QEMU.
"""

import os
import random
from pathlib import Path

import pytest

from acrn_dm.testing.guest.errors import HarnessUnavailable
from tests.lab.peers.exports import export, started
from tests.lab.peers.libblkio.blkio import BLOCK, Disk, Load, library

pytestmark = pytest.mark.process

SECONDS = float(os.environ.get("BLKIO_S", "2"))
DEPTH = 32
BLOCKS = 8192


@pytest.fixture(scope="module", autouse=True)
def there() -> None:
    try:
        library()
    except HarnessUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("queues", [1, 4])
def test_what_is_read_is_what_was_written(queues: int, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(BLOCKS * BLOCK)
    with started([export(tmp_path, "disk", f"virtio-blk,mq={queues},{image}")]):
        disk = Disk.open(tmp_path / "disk.sock", queues=queues, depth=DEPTH)
        try:
            assert disk.capacity == BLOCKS * BLOCK
            load = Load(disk=disk, chance=random.Random(queues))
            load.run(SECONDS)
            assert min(load.reads, load.writes) >= DEPTH
            load.flush()
            load.check_file(image)
        finally:
            disk.close()


def test_next_client_finds_what_the_last_one_wrote(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(BLOCKS * BLOCK))
    with started([export(tmp_path, "disk", f"virtio-blk,{image}")]):
        generations = [0] * BLOCKS
        for turn in range(3):
            disk = Disk.open(tmp_path / "disk.sock", queues=1, depth=DEPTH)
            load = Load(disk=disk, chance=random.Random(turn))
            load.generations = generations
            load.run(0.2)
            load.flush()
            disk.close()
        load.check_file(image)
