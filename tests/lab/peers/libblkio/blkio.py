"""libblkio (1.5, Debian's): the calls that the tests make, by ctypes, and a driver of a disk that checks what it reads.

The library is not in the Debian release of the host, so the next one's is unpacked; it asks for no newer C library.
"""

import ctypes
import random
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from acrn_dm.testing.guest.kernels.packages import STAMP, suite_apt, suites
from acrn_dm.testing.guest.places import exclusive

SUITE, PACKAGE = "trixie", "libblkio1"
LIBRARY = "usr/lib/x86_64-linux-gnu/libblkio.so.1"
DRIVER = b"virtio-blk-vhost-user"
BLOCK = 4096
LONGEST = 16  # blocks of a request
NOISE = random.Random(0).randbytes(1 << 16)


class Region(ctypes.Structure):
    """``struct blkio_mem_region``."""

    _fields_ = (
        ("addr", ctypes.c_void_p),
        ("iova", ctypes.c_uint64),
        ("len", ctypes.c_size_t),
        ("fd_offset", ctypes.c_int64),
        ("fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
    )


class Completion(ctypes.Structure):
    """``struct blkio_completion``."""

    _fields_ = (
        ("user_data", ctypes.c_size_t),
        ("error_msg", ctypes.c_char_p),
        ("ret", ctypes.c_int),
        ("reserved", ctypes.c_uint8 * 12),
    )


class Timeout(ctypes.Structure):
    """``struct timespec``."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def library() -> ctypes.CDLL:
    """The library, fetched on first use. Raises HarnessUnavailable."""
    folder = suites() / SUITE / PACKAGE
    with exclusive():
        if not (folder / STAMP).exists():
            suite_apt(SUITE).unpack(PACKAGE, folder)
            (folder / STAMP).touch()
    found = ctypes.CDLL(str(folder / LIBRARY))
    pointer, number, size = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t
    found.blkio_get_error_msg.restype = ctypes.c_char_p
    found.blkio_get_queue.restype = pointer
    found.blkio_get_queue.argtypes = (pointer, ctypes.c_int)
    for name in ("blkioq_read", "blkioq_write"):
        getattr(found, name).argtypes = (pointer, number, pointer, size, size, ctypes.c_uint32)
        getattr(found, name).restype = None
    found.blkioq_flush.argtypes = (pointer, size, ctypes.c_uint32)
    found.blkioq_flush.restype = None
    found.blkioq_do_io.argtypes = (pointer, pointer, ctypes.c_int, ctypes.c_int, pointer)
    return found


@attrs.define(eq=False)
class Disk:
    """A disk at a socket, open, with *queues* queues and memory for *depth* requests on each."""

    blkio: ctypes.CDLL
    handle: ctypes.c_void_p
    queues: list[int]
    memory: Region
    depth: int

    @classmethod
    def open(cls, path: Path, *, queues: int, depth: int) -> "Disk":
        """Connect and start. Raises AssertionError with the library's words."""
        blkio, handle, region = library(), ctypes.c_void_p(), Region()
        disk = cls(blkio, handle, [], region, depth)
        disk.must(blkio.blkio_create(DRIVER, ctypes.byref(handle)))
        disk.must(blkio.blkio_set_str(handle, b"path", str(path).encode()))
        disk.must(blkio.blkio_connect(handle))
        disk.must(blkio.blkio_set_int(handle, b"num-queues", queues))
        disk.must(blkio.blkio_start(handle))
        size = ctypes.c_size_t(queues * depth * LONGEST * BLOCK)
        disk.must(blkio.blkio_alloc_mem_region(handle, ctypes.byref(region), size))
        disk.must(blkio.blkio_map_mem_region(handle, ctypes.byref(region)))
        disk.queues = [blkio.blkio_get_queue(handle, index) for index in range(queues)]
        return disk

    def must(self, result: int) -> None:
        assert result == 0, (result, self.blkio.blkio_get_error_msg())

    @property
    def capacity(self) -> int:
        """In bytes."""
        value = ctypes.c_uint64()
        self.must(self.blkio.blkio_get_uint64(self.handle, b"capacity", ctypes.byref(value)))
        return value.value

    def close(self) -> None:
        self.blkio.blkio_destroy(ctypes.byref(self.handle))


def content(block: int, generation: int) -> bytes:
    """Of a block that was written for the *generation*-th time; never written, it has zeros."""
    if generation == 0:
        return bytes(BLOCK)
    start = (block * 8191 + generation * 131) % (len(NOISE) - BLOCK)
    return block.to_bytes(8, "little") + generation.to_bytes(8, "little") + NOISE[start : start + BLOCK - 16]


@attrs.define(eq=False)
class Load:
    """Reads and writes of 1 to 16 blocks at random places on all queues of *disk*, as many under way as it has memory
    for; what is read is compared with what was written last.
    """

    disk: Disk
    chance: random.Random
    reads: int = 0
    writes: int = 0
    generations: list[int] = attrs.field(init=False)
    _busy: set[int] = attrs.field(factory=set, init=False)  # blocks
    _under_way: dict[int, tuple[bool, range]] = attrs.field(factory=dict, init=False)  # by slot

    def __attrs_post_init__(self) -> None:
        self.generations = [0] * (self.disk.capacity // BLOCK)

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        count = len(self.disk.queues)
        free = [list(range(index, count * self.disk.depth, count)) for index in range(count)]
        while time.monotonic() < until or self._under_way:
            for index, queue in enumerate(self.disk.queues):
                while free[index] and time.monotonic() < until:
                    self._send(queue, free[index].pop())
                free[index] += self._take(queue)

    def flush(self) -> None:
        """Wait until all that was written is durable."""
        queue = self.disk.queues[0]
        self.disk.blkio.blkioq_flush(queue, 0, 0)
        (done,) = self._completed(queue, 1)
        assert done.ret == 0

    def check_file(self, image: Path) -> None:
        """Compare all of it with what was written."""
        data = image.read_bytes()
        for block, generation in enumerate(self.generations):
            there = data[block * BLOCK : (block + 1) * BLOCK]
            assert there == content(block, generation), f"block {block}"

    def _send(self, queue: int, slot: int) -> None:
        for _ in range(100):
            length = self.chance.randint(1, LONGEST)
            first = self.chance.randrange(len(self.generations) - length)
            blocks = range(first, first + length)
            if self._busy.isdisjoint(blocks):
                break
        else:
            raise AssertionError("the disk is too small")
        self._busy.update(blocks)
        write = self.chance.random() < 0.5
        self._under_way[slot] = write, blocks
        place = (self.disk.memory.addr or 0) + slot * LONGEST * BLOCK
        if write:
            for block in blocks:
                self.generations[block] += 1
            ctypes.memmove(place, b"".join(content(block, self.generations[block]) for block in blocks), length * BLOCK)
        request = self.disk.blkio.blkioq_write if write else self.disk.blkio.blkioq_read
        request(queue, first * BLOCK, place, length * BLOCK, slot, 0)

    def _take(self, queue: int) -> Iterator[int]:
        for done in self._completed(queue, 0):
            assert done.ret == 0, done.error_msg
            write, blocks = self._under_way.pop(done.user_data)
            if write:
                self.writes += 1
            else:
                self.reads += 1
                place = (self.disk.memory.addr or 0) + done.user_data * LONGEST * BLOCK
                wanted = b"".join(content(block, self.generations[block]) for block in blocks)
                assert ctypes.string_at(place, len(wanted)) == wanted, f"blocks {blocks}"
            self._busy.difference_update(blocks)
            yield done.user_data

    def _completed(self, queue: int, least: int) -> list[Completion]:
        completions = (Completion * 64)()
        timeout = Timeout(20, 0)
        count = self.disk.blkio.blkioq_do_io(queue, completions, least, 64, ctypes.byref(timeout) if least else None)
        assert count >= 0, (count, self.disk.blkio.blkio_get_error_msg())
        return list(completions[:count])
