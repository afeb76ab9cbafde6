"""Devices on loops that run on threads of their own, as in production: resets in the middle of traffic."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from acrn_dm.testing.driver import DriverQueue
from tests.devices.virtio_blk.blk_rig import IN, OK, OUT, disk, header, image
from tests.devices.virtio_console.console_rig import console
from tests.devices.virtio_net.net_rig import PLAIN, card, frame

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


def test_reset_waits_for_a_port_that_the_host_side_set_going(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The backend started it after the kicks had been stopped: its chain must not reach the next driver."""
    with console(f"file:con={tmp_path / 'log'}", features=0) as c, running(c.machine):
        port, loop = c.device.ports[0], c.machine.io_loop("io")
        inside, leave = threading.Event(), threading.Event()
        send, stop = port.backend.send, c.device.stop

        def slow_send(views: Sequence[memoryview | bytes]) -> int:
            inside.set()
            leave.wait(10)
            return send(views)

        def stop_while_it_sends() -> None:
            port.backend.send = slow_send  # type: ignore[method-assign]
            loop.call_soon(port.again)
            assert inside.wait(10)
            threading.Timer(0.05, leave.set).start()
            stop()

        port.backend.connected = False  # nothing is taken from the ring by the kick itself
        c.device.ports[0].tx, tx = None, c.device.ports[0].tx
        c.driver.queue(1).send([b"late"])
        port.tx, port.backend.connected = tx, True
        c.device.stop = stop_while_it_sends  # type: ignore[method-assign]
        c.driver.reset()
        del c.device.stop
        port.backend.send = send  # type: ignore[method-assign]
        loop.barrier()
        assert port._pending is None
        c.driver.start(0)
        c.driver.queue(1).send([b"next"])
        c.driver.queue(1).kick()
        until(lambda: all_done(c.driver.queue(1)))
        assert c.machine.failures == []
    assert "handler on loop" not in caplog.text
