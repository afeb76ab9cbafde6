"""A machine with one disk, and requests as a driver writes them."""

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.devices.virtio_blk import acrn_dm_device_types
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.device import BlkDevice
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.testing import Completion, SimMachine, VirtioDriver
from acrn_dm.testing.driver import DriverQueue

IN, OUT, SCSI, FLUSH, FLUSH_OUT, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 2, 4, 5, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
POISON = b"\xa5"  # what the driver fills writable buffers with
F_RO, F_FLUSH, F_CONFIG_WCE, F_MQ, F_DISCARD, F_WRITE_ZEROES = 1 << 5, 1 << 9, 1 << 11, 1 << 12, 1 << 13, 1 << 14
WRITEBACK_AT = 32
AIO: ContextVar[str] = ContextVar("AIO", default="")  # options that every disk gets: which engine


def header(kind: int, sector: int = 0) -> bytes:
    """struct virtio_blk_req up to the data."""
    return struct.pack("<IIQ", kind, 0, sector)


def segment(sector: int, sectors: int, flags: int = 0) -> bytes:
    """struct virtio_blk_discard_write_zeroes."""
    return struct.pack("<QII", sector, sectors, flags)


@attrs.define(eq=False)
class Disk:
    """The machine, the device and its driver's first queue."""

    machine: SimMachine
    device: BlkDevice
    driver: VirtioDriver

    @property
    def queue(self) -> DriverQueue:
        return self.driver.queue(0)

    def request(self, kind: int, sector: int = 0, data: bytes = b"", room: int = 0) -> Completion:
        """One request of three buffers, done."""
        out = [header(kind, sector), data] if data else [header(kind, sector)]
        return self.queue.transfer(out, [room, 1] if room else [1])

    def read(self, sector: int, sectors: int = 1) -> bytes:
        """Read, which must succeed."""
        done = self.request(IN, sector, room=512 * sectors)
        assert done.data[-1] == OK
        return done.data[:-1]

    def write(self, sector: int, data: bytes) -> int:
        """Write; returns the status."""
        return self.request(OUT, sector, data).data[-1]


@contextmanager
def disk(
    text: str,
    *,
    features: int | None = None,
    start: bool = True,
    legacy: bool = False,
    create: Callable[..., Any] | None = None,
    **machine: Any,
) -> Iterator[Disk]:
    """A machine with ``virtio-blk,text`` in slot 3, its driver started."""
    text += AIO.get()
    with SimMachine(**machine) as m:
        kind = acrn_dm_device_types()[0]
        function = m.add(create or attrs.evolve(kind), text, slot=3)
        driver = m.driver_legacy(3) if legacy else m.driver(3)
        if start:
            driver.start(features)
        yield Disk(m, function.device, driver)  # type: ignore[attr-defined]


def image(directory: Path, sectors: int = 2048, name: str = "disk.img") -> Path:
    """An image whose sectors each begin with their number."""
    path = directory / name
    path.write_bytes(b"".join(struct.pack("<Q", n) + bytes([n % 251]) * 504 for n in range(sectors)))
    return path


@contextmanager
def slow_medium(d: Disk) -> Iterator[threading.Event]:
    """Everything that worker threads do on the medium waits for the event, which is set at the end in any case."""
    gate = threading.Event()
    real = d.device.image
    d.device.image = Gated(real, gate)  # type: ignore[assignment]
    try:
        yield gate
    finally:
        gate.set()
        d.device.image = real


class Gated:
    """An image whose transfers wait."""

    def __init__(self, image: object, gate: threading.Event) -> None:
        self._image = image
        self._gate = gate

    def read_cached(self, views: object, offset: int) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._image, name)

        def wait_and_call(*args: Any, **kwargs: Any) -> Any:
            assert self._gate.wait(30)
            return method(*args, **kwargs)

        return wait_and_call if callable(method) else method


class Failing:
    """An image on which everything fails with *err*."""

    def __init__(self, image: Image, err: int) -> None:
        self._image = image
        self._err = err

    def read_cached(self, views: object, offset: int) -> bool:
        return False

    def _fail(self, *args: Any, **kwargs: Any) -> None:
        raise OSError(self._err, os.strerror(self._err))

    read = write = flush = discard = write_zeroes = _fail

    def close(self) -> None:
        self._image.close()


def config(text: str) -> BlkConfig:
    """Options as on the command line."""
    return BlkConfig.from_string(text)
