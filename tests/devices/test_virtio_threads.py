"""Devices on loops that run on threads of their own, as in production: resets in the middle of traffic."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from acrn_dm.testing.driver import DriverQueue
from tests.devices.blk_rig import IN, OK, OUT, disk, header, image
from tests.devices.console_rig import console
from tests.devices.net_rig import PLAIN, card, frame

ROUNDS = 30


@contextlib.contextmanager
def running(machine: object) -> Iterator[None]:
    """Give every loop of *machine* its thread."""
    loops = [*machine.io_loops.values()]  # type: ignore[attr-defined]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.stop()


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.001)


def all_done(queue: DriverQueue) -> bool:
    """Whether everything sent came back with a good status, taking what came."""
    assert all(done.data[-1:] in (b"", bytes([OK])) for done in queue.completed())
    return queue.in_flight == 0


def test_disk_survives_resets_in_the_middle_of_requests(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},writeback") as d, running(d.machine):
        for i in range(ROUNDS):
            d.driver.negotiate()
            d.driver.setup_queue(0)
            d.driver.driver_ok()
            for n in range(40):
                d.queue.send([header(OUT if n % 2 else IN, n)] + [bytes([i]) * 512] * (n % 2), [512, 1][n % 2 :])
            d.queue.kick()
            if i % 3 == 0:
                until(lambda: all_done(d.queue))
        d.driver.reset()
        assert d.machine.failures == []


def test_card_survives_resets_in_the_middle_of_frames() -> None:
    with card(memory=64 << 20) as c, running(c.machine):
        for _ in range(ROUNDS):
            c.driver.negotiate()
            c.driver.setup_queue(0, size=64)
            c.driver.setup_queue(1, size=64)
            c.driver.driver_ok()
            for _ in range(20):
                c.rx.send([], [256])
                c.tx.send([PLAIN, frame()])
            c.rx.kick()
            c.tx.kick()
            for _ in range(5):
                c.peer.send(PLAIN + frame())
            c.sent()
        until(lambda: c.sent() is not None and all_done(c.tx))
        c.driver.reset()
        assert c.machine.failures == []


def test_console_survives_resets_in_the_middle_of_output(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with console(f"file:con={fifo}", features=0) as c, running(c.machine):
        for _ in range(ROUNDS):
            c.driver.negotiate(0)
            for index in range(2):
                c.driver.setup_queue(index)
            c.driver.driver_ok()
            for _ in range(20):
                c.driver.queue(1).send([bytes(3000)])
            c.driver.queue(1).kick()
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 1 << 16)

        def drained() -> bool:
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 1 << 16)
            return all_done(c.driver.queue(1))

        until(drained)
        c.driver.reset()
        assert c.machine.failures == []
    os.close(reader)
