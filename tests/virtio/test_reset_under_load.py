"""Resets of devices that are served in C by threads of their own, in the middle of what they do (2.1.2: after a reset
that reads back 0 the device touches no ring and no buffer).

Each round fills the rings, kicks, and resets at some moment of the work. As soon as the status reads 0 the driver
writes a pattern over all that the device knew of; whoever still writes there afterwards spoils it.
"""

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import DriverQueue
from acrn_dm.virtio.features import PACKED

pytestmark = pytest.mark.stress

ROUNDS = 40
DEPTH = 24
ROOM = 256 << 10  # more than is read on the loop itself
PATTERN = b"\xee"
SLOT = 3
HANDS = 2  # seconds for the status to read 0; a host call of ours takes less

Fill = Callable[[VirtioDriver], None]


@attrs.define(eq=False)
class Area:
    """Guest memory that is the driver's alone since a reset."""

    gpa: int
    size: int


def overwrite(machine: SimMachine, driver: VirtioDriver) -> list[Area]:
    """Write the pattern over rings and buffers of *driver*, who has just reset."""
    areas = []
    for queue in driver.queues.values():
        layout = queue.ring.layout
        areas.append(Area(layout.desc, layout.end - layout.desc))
        areas += [Area(gpa, length) for gpa, length in queue.writable_places]
    for area in areas:
        machine.memory.write(area.gpa, PATTERN * area.size)
    return areas


def spoiled(machine: SimMachine, areas: list[Area]) -> list[Area]:
    return [area for area in areas if machine.memory.read(area.gpa, area.size) != PATTERN * area.size]


def reset(driver: VirtioDriver) -> None:
    """Reset with the status polled hard, so that what comes late is seen."""
    until = time.monotonic() + HANDS
    driver.status = 0
    while driver.status:
        assert time.monotonic() < until, "the status does not read 0"


@contextlib.contextmanager
def threads(machine: SimMachine, features: int, poll_us: int = 0) -> Iterator[VirtioDriver]:
    """Loops that run on threads of their own; there is one for each thing when a driver has been there once."""
    driver = machine.driver(SLOT)
    driver.start(features)
    driver.reset()
    for loop in machine.io_loops.values():
        loop.poll.poll_limit = 1000 * poll_us
        loop.start()
    try:
        yield driver
    finally:
        for loop in machine.io_loops.values():
            loop.stop()


def read_much(driver: VirtioDriver) -> None:
    """Requests of a disk that write into many buffers."""
    for i in range(DEPTH):
        driver.queue(0).send([struct.pack("<IIQ", 0, 0, i * ROOM // 512)], [ROOM, 1])


def post_buffers(driver: VirtioDriver) -> None:
    """Buffers for what the host's side of a console sends, and output."""
    for _ in range(DEPTH):
        driver.queue(0).send([], [64])
        driver.queue(1).send([b"out" * 20])


def some_of(queue: DriverQueue, count: int) -> None:
    """Wait until *count* of the chains came back."""
    until = time.monotonic() + HANDS
    done = 0
    while done < count:
        assert time.monotonic() < until, f"{done} of {count} chains came back"
        done += len(queue.ring.used())


def hammer(machine: SimMachine, driver: VirtioDriver, fill: Fill, features: int) -> None:
    chance = random.Random(1)
    for _ in range(ROUNDS):
        driver.start(features)
        fill(driver)
        for queue in driver.queues.values():
            queue.kick()
        some_of(driver.queue(0), chance.randrange(DEPTH))
        reset(driver)
        areas = overwrite(machine, driver)
        for _ in range(300):  # exits, during which a straggler would come
            driver.registers.read("device_status")
        assert spoiled(machine, areas) == []
        assert machine.failures == []
        for queue in driver.queues.values():
            queue.forget()
        driver.queues = {}


@pytest.mark.parametrize("features", [0, PACKED], ids=["split", "packed"])
@pytest.mark.parametrize("poll_us", [0, 50], ids=["asleep", "polling"])
@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_disk_that_is_reset_while_it_reads_writes_nothing_more(
    tmp_path: Path, engine: str, poll_us: int, features: int
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(DEPTH * ROOM))
    with SimMachine(memory=64 << 20) as machine:
        machine.add("virtio-blk", f"iothread,{path},nocache,aio={engine}", slot=SLOT)
        with threads(machine, features, poll_us) as driver:
            hammer(machine, driver, read_much, features)


@pytest.mark.parametrize("features", [0, PACKED], ids=["split", "packed"])
def test_console_that_is_reset_while_bytes_come_and_go_writes_nothing_more(tmp_path: Path, features: int) -> None:
    with SimMachine(memory=64 << 20) as machine:
        machine.add("virtio-console", f"socket:chan={tmp_path}/s", slot=SLOT)
        with threads(machine, features) as driver, socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "s"))
            ended = threading.Event()

            def talk() -> None:
                peer.setblocking(False)
                while not ended.is_set():
                    with contextlib.suppress(BlockingIOError):
                        peer.recv(1 << 16)
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            peer.send(bytes(range(64)))
                    select.select([peer], [peer], [], 0.01)

            talker = threading.Thread(target=talk)
            talker.start()
            try:
                hammer(machine, driver, post_buffers, features)
            finally:
                ended.set()
                talker.join()
