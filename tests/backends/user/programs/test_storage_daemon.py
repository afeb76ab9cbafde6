"""virtio-blk over qemu-storage-daemon's vhost-user-blk export."""

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.devices import virtio_blk
from acrn_dm.memory.guest_memory import MIB
from acrn_dm.testing import SimMachine
from tests.backends.user.user_rig import IN, OUT, Daemon, DiskLoad, block_content, eventually, storage_daemon
from tests.patience import comes_true

pytestmark = pytest.mark.process

IMAGE_BYTES = 256 * MIB
BLOCK = 16 << 10


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    if shutil.which("qemu-storage-daemon") is None:
        pytest.skip("needs qemu-storage-daemon (Debian package qemu-system-common)")
    image = tmp_path / "image"
    with image.open("wb") as f:
        f.truncate(IMAGE_BYTES)
    daemon = storage_daemon(tmp_path, image)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with SimMachine(memory=64 * MIB, plugins=[virtio_blk, vhost_user]) as machine:
        yield machine


def test_capacity_and_features_are_the_daemons(daemon: Daemon, machine: SimMachine) -> None:
    machine.add("virtio-blk", f"vhost-user={daemon.socket}", slot=3)
    driver = machine.driver(3)
    accepted = driver.start()
    assert int.from_bytes(driver.read_config(0, 8), "little") == IMAGE_BYTES // 512
    assert accepted & 1 << 9  # FLUSH


@pytest.mark.parametrize("kills", [0, 10])
def test_256_mb_of_random_writes_and_reads_are_right_however_often_the_daemon_is_killed(
    daemon: Daemon, machine: SimMachine, kills: int
) -> None:
    machine.add("virtio-blk", f"vhost-user={daemon.socket}", slot=3)
    driver = machine.driver(3)
    driver.start()
    blocks = list(range(IMAGE_BYTES // BLOCK))
    total = 2 * len(blocks)
    when = [total * (i + 1) // (kills + 1) for i in range(kills)]

    def kill_now_and_then(completed: int) -> None:
        if when and completed >= when[0]:
            when.pop(0)
            daemon.kill()
            daemon.start(wait=False)

    load = DiskLoad(machine, driver, BLOCK, on_progress=kill_now_and_then)
    content = block_content(1, BLOCK)
    random.Random(2).shuffle(blocks)
    load.run(OUT, blocks, content)
    random.Random(3).shuffle(blocks)
    load.run(IN, blocks, content)
    assert not when
    assert machine.failures == []


def test_driver_that_resets_while_the_daemon_is_away_starts_again_with_the_next(
    daemon: Daemon, machine: SimMachine
) -> None:
    machine.add("virtio-blk", f"vhost-user={daemon.socket}", slot=3)
    driver = machine.driver(3)
    driver.start()
    daemon.kill()
    machine.settle()
    driver.reset()
    driver.start()
    queue = driver.queue(0)
    queue.send([bytes(16)], [512, 1])
    queue.kick()
    machine.settle()
    assert queue.completed() == []
    daemon.start()
    done = []
    eventually(machine, lambda: bool(done.extend(queue.completed()) or done))
    assert done[0].data == bytes(513)
    assert machine.failures == []


def test_relay_looks_for_answers_of_a_daemon_that_has_the_same_cpu(daemon: Daemon, machine: SimMachine) -> None:
    """Without ``poll_us``: it gives the CPU to the daemon between two looks, and goes on when that has slept."""
    machine.add("virtio-blk", f"vhost-user={daemon.socket},relay=on", slot=3)
    driver, loop = machine.driver(3), machine.io_loop("io")
    driver.start()
    cpu = {min(os.sched_getaffinity(0))}
    assert daemon.process is not None
    for thread in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpu)
    loop.call_soon(lambda: os.sched_setaffinity(0, cpu))
    loop.start()
    queue = driver.queue(0)

    def finds_answers() -> bool:
        for _ in range(100):  # a driver that takes its time is not waited for
            queue.send([bytes(16)], [512, 1])
            queue.kick()
            deadline = time.monotonic() + 10
            while not queue.completed():
                assert time.monotonic() < deadline
        return loop.poll.found > 0

    assert comes_true(finds_answers)
    assert loop.poll.poll_limit == 0
    loop.stop()
    assert machine.failures == []
