"""virtio-blk while one of its queues is reset alone: what is in flight there is dropped, the other queue goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.testing.driver import VirtioDriver
from tests.devices.virtio_blk.blk_rig import GET_ID, OUT, Disk, disk, header, image
from tests.devices.virtio_blk.stuck import WAIT_S, Stuck, stuck

pytestmark = pytest.mark.both_formats

SECTOR = 512


@contextmanager
def two_queues(path: Path) -> Iterator[Disk]:
    with disk(f"mq=2,{path}", vcpus=2) as d:
        yield d


def in_the_host(d: Disk, host: Stuck) -> list[tuple[int, int]]:
    """A write of queue 0 that waits in the host, and one more behind it; returns where their status bytes go."""
    for _ in range(2):
        d.queue.send([header(OUT), bytes(SECTOR)], [1])
    places = d.queue.writable_places
    d.queue.kick()
    d.machine.io_loops["io"].step()
    assert host.entered.wait(WAIT_S)
    return places


def ask(driver: VirtioDriver, index: int) -> int:
    driver.registers.write("queue_select", index)
    driver.registers.write("queue_reset", 1)
    return driver.registers.read("queue_reset")


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_queue_reset_reads_1_until_the_host_is_done_and_nothing_is_answered(tmp_path: Path) -> None:
    with two_queues(image(tmp_path)) as d, stuck("pwritev") as host:
        places = in_the_host(d, host)
        before = [d.machine.memory.read(*place) for place in places]
        assert ask(d.driver, 0) == 1
        other = d.driver.queue(1)
        other.send([header(GET_ID)], [20, 1])
        other.kick()
        d.machine.io_loops["io"].step()
        assert len(other.completed()) == 1
        assert d.driver.registers.queue_size(0) > 0
        assert d.driver.registers.read("queue_reset") == 1
        host.release.set()
        old = d.queue
        d.driver.reset_queue(0)
        d.machine.settle()
        assert [d.machine.memory.read(*place) for place in places] == before
        assert old.ring.used_idx() == 0
        d.driver.setup_queue(0, size=32)
        assert d.write(1, b"x" * SECTOR) == 0
        assert d.read(1) == b"x" * SECTOR


def test_device_reset_waits_for_what_a_queue_reset_left_in_the_host(tmp_path: Path) -> None:
    with two_queues(image(tmp_path)) as d, stuck("pwritev") as host:
        in_the_host(d, host)
        assert ask(d.driver, 0) == 1
        d.driver.status = 0
        assert d.driver.status != 0
        host.release.set()
        d.driver.reset()
        d.driver.start()
        assert d.write(1, bytes(SECTOR)) == 0


def test_requests_that_wait_for_a_paused_guest_go_with_their_queue(tmp_path: Path) -> None:
    with two_queues(image(tmp_path)) as d:
        job = type("Job", (), {"pool": d.device._pools[0]})()
        d.device._retries._jobs.append(job)
        d.driver.reset_queue(0)
        assert d.device._retries._jobs == []
