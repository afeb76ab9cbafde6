"""The driver's side of a disk (virtio 5.2): requests, and the fields of its configuration space."""

import functools
import struct
from collections.abc import Sequence

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import started, world
from acrn_dm.testing.conformance.outside.world import Medium
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rule import NotApplicable
from acrn_dm.testing.driver import Completion, VirtioDriver

BARRIER, SIZE_MAX, SEG_MAX, RO, BLK_SIZE = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6
FLUSH_F, TOPOLOGY, CONFIG_WCE, MQ = 1 << 9, 1 << 10, 1 << 11, 1 << 12
DISCARD_F, WRITE_ZEROES_F, LIFETIME, SECURE_ERASE_F, ZONED = (1 << bit for bit in range(13, 18))

IN, OUT, FLUSH, FLUSH_OUT, GET_ID, GET_LIFETIME, DISCARD, WRITE_ZEROES, SECURE_ERASE = 0, 1, 4, 5, 8, 10, 11, 13, 14
ZONE_TYPES = (15, 16, 18, 20, 22, 24, 26)
OK, IOERR, UNSUPP = 0, 1, 2
SECTOR = 512
UNMAP = 1
WRITEBACK_AT, NUM_QUEUES_AT, MAY_UNMAP_AT = 32, 34, 56


def header(kind: int, sector: int = 0) -> bytes:
    """struct virtio_blk_req up to its data."""
    return struct.pack("<IIQ", kind, 0, sector)


def segment(sector: int, sectors: int, flags: int = 0) -> bytes:
    """struct virtio_blk_discard_write_zeroes."""
    return struct.pack("<QII", sector, sectors, flags)


def pattern(seed: int, sectors: int = 1) -> bytes:
    """Bytes that differ from sector to sector and from seed to seed."""
    return b"".join(struct.pack("<II", seed, n) * (SECTOR // 8) for n in range(sectors))


@attrs.define(eq=False)
class Disk:
    """A started disk and, if one was given, its medium."""

    bench: Bench
    driver: VirtioDriver

    @functools.cached_property
    def medium(self) -> Medium:
        """The medium. Raises NotApplicable."""
        return world(self.bench, Medium)

    @property
    def capacity(self) -> int:
        """Sectors of 512 bytes."""
        return int.from_bytes(self.driver.read_config(0, 8), "little")

    def send(self, out: Sequence[bytes], in_: Sequence[int], queue: int = 0) -> Completion:
        """Do one request of these buffers."""
        return self.bench.exchange(self.driver.queue(queue), Shape(out=tuple(out), in_=tuple(in_)))

    def request(self, kind: int, sector: int = 0, data: bytes = b"", room: int = 0, queue: int = 0) -> Completion:
        """Do one request, laid out as most drivers do."""
        return self.send([header(kind, sector), *[data] * bool(data)], [*[room] * bool(room), 1], queue)

    def status(self, kind: int, sector: int = 0, data: bytes = b"", room: int = 0) -> int:
        """Do one request; returns its status."""
        return self.request(kind, sector, data, room).data[-1]

    def read(self, sector: int, sectors: int = 1, queue: int = 0) -> bytes:
        """Read, which has to succeed."""
        done = self.request(IN, sector, room=sectors * SECTOR, queue=queue)
        assert done.data[-1] == OK, f"reading sector {sector} gets status {done.data[-1]}"
        return done.data[:-1]

    def write(self, sector: int, data: bytes, queue: int = 0) -> None:
        """Write, which has to succeed."""
        status = self.request(OUT, sector, data, queue=queue).data[-1]
        assert status == OK, f"writing sector {sector} gets status {status}"

    def free(self, sectors: int) -> int:
        """The first of so many sectors that may be written over. Raises NotApplicable on a disk that has not as many or
        can't be written.
        """
        if self.driver.registers.offered() & RO:
            raise NotApplicable("the disk is read-only")
        if self.capacity < sectors + 8:
            raise NotApplicable(f"the disk has {self.capacity} sectors")
        return 4

    def some(self) -> int:
        """A sector that can be read. Raises NotApplicable on an empty disk."""
        if not self.capacity:
            raise NotApplicable("the disk is empty")
        return min(4, self.capacity - 1)


def disk(bench: Bench, *, want: int = 0, without: int = 0) -> Disk:
    """A disk that is started with all it offers but *without*. Raises NotApplicable where *want* is not offered."""
    return Disk(bench, started(bench, want=want, without=without))
