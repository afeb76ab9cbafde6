"""A ring, an image and the native executor between them: chains go in by hand, no loop and no device."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.image.backend_direct import DirectImage
from acrn_dm.devices.virtio_blk.medium import open_image
from acrn_dm.devices.virtio_blk.native._service import BlkService
from acrn_dm.devices.virtio_blk.native.engines._engine import BlkEngine
from acrn_dm.devices.virtio_blk.native.engines._pool import PoolEngine
from acrn_dm.devices.virtio_blk.native.engines._uring import BUILT, UringEngine
from acrn_dm.devices.virtio_blk.request import Limits, Request
from tests.devices.virtio_blk.blk_rig import config
from tests.ring.fastring_rig import DATA, HIGH, LOW, TOUCHING, Rig

SIZE = 32
PATIENCE = 20.0
SERIAL = b"ACRN--00"
REGIONS = (LOW, TOUCHING, HIGH)


def make_engine(name: str, fd: int) -> BlkEngine:
    return UringEngine(fd, SIZE) if name == "io_uring" else PoolEngine(fd, SIZE)


def engines() -> list[str]:
    """Those that this host has."""
    if not BUILT:
        return ["threads"]
    try:
        UringEngine(0, 4).close()
    except OSError:
        return ["threads"]
    return ["io_uring", "threads"]


@attrs.define(eq=False)
class Served:
    """``send`` a request, then ``finish``: the statuses of all."""

    rig: Rig
    image: Image
    service: BlkService
    at: dict[int, tuple[int, int]] = attrs.field(factory=dict)
    handed: list[tuple[Request, int]] = attrs.field(factory=list)
    _next: int = DATA

    def send(self, kind: int, sector: int = 0, data: bytes = b"", room: int = 0) -> int:
        """Make it available; returns where its writable part begins."""
        start, self._next = self._next, self._next + 16 + len(data) + room + 1
        self.rig.memory.write(start, struct.pack("<IIQ", kind, 0, sector) + data + b"\xa5" * (room + 1))
        filled = start + 16 + len(data)
        out = [(start, 16), (start + 16, len(data))] if data else [(start, 16)]
        head = self.rig.offer(out, [(filled, room), (filled + room, 1)] if room else [(filled, 1)])
        self.at[head] = (filled, room)
        return filled

    def finish(self) -> list[tuple[int, bytes]]:
        """(written, writable part) of each request that is answered, in order; others are in ``handed``."""
        while self.service.take(self.rig.ring):
            pass
        assert self.service.drain(PATIENCE)
        handed = self.service.take_handed(self.rig.ring)
        self.handed += [(request, err) for _, request, err in handed]
        self.rig.ring.publish()
        used = [(self.at[head], written) for head, written in self.rig.driver.used()]
        return [(written, self.rig.memory.read(gpa, room + 1)) for (gpa, room), written in used]

    def one(self, kind: int, sector: int = 0, data: bytes = b"", room: int = 0) -> tuple[int, bytes]:
        self.send(kind, sector, data, room)
        (answer,) = self.finish()
        return answer


def limits(image: Image) -> Limits:
    return Limits(capacity=image.size // 512, zeroes_segments=1, zeroes_sectors=64)


@contextmanager
def served(
    path: Path, engine: str, text: str = "", *, durable: bool = False, in_memory: bool = False, legacy: bool = False
) -> Iterator[Served]:
    """The image at *path*, with option *text*, behind *engine*."""
    rig = Rig(size=SIZE)
    image = open_image(config(f"{path}{text}"))
    alignment = image.alignment if isinstance(image, DirectImage) else 0
    service = BlkService(rig.ring, SERIAL, legacy=legacy)
    service.adopt(make_engine(engine, image.fd), image, alignment=alignment, in_memory=in_memory)
    service.limit(limits(image), durable=durable)
    try:
        yield Served(rig, image, service)
    finally:
        service.close()
        image.close()
        rig.ring.close()
        rig.memory.close()


def drop_cache(image: Image) -> None:
    """Have the next read wait for the medium."""
    os.fdatasync(image.fd)
    os.posix_fadvise(image.fd, 0, 0, os.POSIX_FADV_DONTNEED)
