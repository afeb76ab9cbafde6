"""Resets while the host has a request of the native engines: a read of a pipe in which nothing is yet.

A C thread that waits there can't be called back, as one that waits for a disk can't; the kernel gives a request of an
io_uring back.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.devices.virtio_blk import medium
from acrn_dm.devices.virtio_blk.config import BlkConfig, SectorSize
from acrn_dm.devices.virtio_blk.image.backend import Image
from tests.devices.virtio_blk.blk_rig import IN, OK, Disk, disk, header
from tests.devices.virtio_blk.native.service_rig import engines
from tests.devices.virtio_blk.test_queue_reset import ask
from tests.devices.virtio_blk.test_reset import RUNNING, ask_for_reset
from tests.patience import comes_true

SECTOR = 512
HERE = 2**64 - 1  # as an offset: where the file stands (preadv2), which is all that a pipe knows
PREADV2 = "327"  # the system call's number on x86-64


def a_thread_reads() -> bool:
    """Whether a thread of ours waits in the kernel for preadv2."""
    for path in Path("/proc/self/task").glob("*/syscall"):
        with contextlib.suppress(OSError):  # it has ended
            if path.read_text().split()[:1] == [PREADV2]:
                return True
    return False


@attrs.define(eq=False)
class Pipe:
    """A disk on the reading end of a pipe: ``answer`` is what its host does in the end."""

    disk: Disk
    writer: int
    threads: bool

    def answer(self) -> None:
        os.write(self.writer, b"h" * SECTOR)

    def send(self, queue: int = 0) -> tuple[int, int]:
        """A read that the host has then; returns where its data goes."""
        q = self.disk.driver.queue(queue)
        before = len(q.writable_places)
        q.send([header(IN)], [SECTOR, 1])
        place = q.writable_places[before]
        q.kick()
        self.disk.machine.io_loops["io"].step()
        if self.threads:
            comes_true(a_thread_reads)  # one that no thread has begun would be dropped
        assert q.completed() == []
        return place

    def memory(self, place: tuple[int, int]) -> bytes:
        return self.disk.machine.memory.read(*place)


@pytest.fixture(params=["threads", "io_uring"])
def pipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Pipe]:
    if request.param not in engines():
        pytest.skip("no io_uring here")
    reader, writer = os.pipe()
    sectors = SectorSize(logical=SECTOR, physical=SECTOR)

    def open_image(config: BlkConfig) -> Image:
        image = Image(fd=reader, size=SECTOR, sectors=sectors, is_block_device=False)
        image.start = HERE
        return image

    monkeypatch.setattr(medium, "open_image", open_image)
    with disk(f"mq=2,{tmp_path},ro,aio={request.param}", vcpus=2) as d:
        yield Pipe(d, writer, request.param == "threads")
        os.close(writer)  # whatever still reads ends


def read_again(pipe: Pipe) -> None:
    """The next driver is served."""
    pipe.disk.driver.start()
    pipe.answer()
    done = pipe.disk.request(IN, 0, room=SECTOR)
    assert (done.data[-1], done.data[:-1]) == (OK, b"h" * SECTOR)


@pytest.mark.parametrize("pipe", ["threads"], indirect=True)
def test_status_reads_zero_when_the_thread_is_back_and_not_before(pipe: Pipe) -> None:
    place = pipe.send()
    assert ask_for_reset(pipe.disk.driver) == RUNNING
    pipe.disk.machine.settle()
    assert (pipe.disk.driver.status, pipe.disk.device.busy) == (RUNNING, True)
    pipe.answer()
    pipe.disk.driver.reset()
    assert pipe.disk.driver.status == 0
    pipe.disk.machine.memory.write(place[0], b"\xee" * place[1])
    pipe.disk.machine.settle()
    assert pipe.memory(place) == b"\xee" * place[1]
    read_again(pipe)


@pytest.mark.parametrize("pipe", ["io_uring"], indirect=True)
def test_what_the_kernel_gives_back_needs_no_answer(pipe: Pipe) -> None:
    place = pipe.send()
    before = pipe.memory(place)
    pipe.disk.driver.reset()
    assert (pipe.disk.driver.status, pipe.disk.device.busy) == (0, False)
    assert pipe.memory(place) == before
    read_again(pipe)


@pytest.mark.parametrize("pipe", ["threads"], indirect=True)
def test_queue_reset_reads_1_until_its_thread_is_back(pipe: Pipe) -> None:
    driver = pipe.disk.driver
    pipe.send()
    old = pipe.disk.queue
    assert ask(driver, 0) == 1
    assert pipe.disk.device.queue_busy(0)
    assert not pipe.disk.device.queue_busy(1)
    pipe.answer()
    driver.reset_queue(0)
    assert (pipe.disk.device.queue_busy(0), old.completed()) == (False, [])


@pytest.mark.parametrize("pipe", ["threads"], indirect=True)
def test_driver_that_does_not_wait_gets_nowhere(pipe: Pipe) -> None:
    pipe.send()
    ask_for_reset(pipe.disk.driver)
    for status in (1, 3, 11, 15):
        pipe.disk.driver.status = status
    assert pipe.disk.driver.status == RUNNING
    pipe.answer()
    pipe.disk.driver.reset()
    assert pipe.disk.driver.status == 0


def test_request_that_comes_back_is_answered(pipe: Pipe) -> None:
    pipe.send()
    pipe.answer()
    q = pipe.disk.queue
    answers: list[bytes] = []

    def answered() -> bool:
        pipe.disk.machine.io_loops["io"].step(0.01)
        answers.extend(done.data for done in q.completed())
        return bool(answers)

    comes_true(answered)
    assert answers == [b"h" * SECTOR + bytes([OK])]


def test_chain_that_follows_a_late_answer_is_served_without_a_kick(pipe: Pipe) -> None:
    """A driver that polls has its next request in the ring at once, and saves us a sleep."""
    machine = pipe.disk.machine
    pipe.send()
    kicks = machine.queue_counts(3, 0).kicks
    pipe.disk.queue.send([header(IN)], [SECTOR, 1])
    pipe.answer()
    pipe.answer()
    machine.settle()
    assert [done.data[-1] for done in pipe.disk.queue.completed()] == [OK] * 2
    assert machine.queue_counts(3, 0).kicks == kicks
