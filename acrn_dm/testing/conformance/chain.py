"""Chains laid out by hand: buffers with guards around them, and what a device did to each byte."""

import itertools
import random

import attrs

from acrn_dm.ring.layout import DESC_F_WRITE
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.driver import DriverQueue

GUARD = b"\x3c" * 16
POISONS = (0xA5, 0x5A, 0xC3)  # a byte that keeps each of them in turn was not written


@attrs.frozen(kw_only=True)
class Buffer:
    """One buffer in guest memory and what was in it before the device had it."""

    gpa: int
    before: bytes


@attrs.define(eq=False, kw_only=True)
class Laid:
    """One chain: its head and its buffers; *written* is the device's count once it is back."""

    bench: Bench
    head: int = -1
    readable: list[Buffer]
    writable: list[Buffer]
    written: int = -1

    @property
    def out(self) -> list[tuple[int, int]]:
        """Addresses and lengths of what the device may read."""
        return [(b.gpa, len(b.before)) for b in self.readable]

    @property
    def in_(self) -> list[tuple[int, int]]:
        """Addresses and lengths of what it may write."""
        return [(b.gpa, len(b.before)) for b in self.writable]

    @property
    def buffers(self) -> list[tuple[int, int, int]]:
        """Address, length and flags of each, as descriptors have them."""
        return [(gpa, n, 0) for gpa, n in self.out] + [(gpa, n, DESC_F_WRITE) for gpa, n in self.in_]

    def data(self) -> bytes:
        """What is in the writable buffers now."""
        return b"".join(self.bench.machine.memory.read(b.gpa, len(b.before)) for b in self.writable)

    def readable_changed(self) -> bool:
        """Whether anything the device may only read, or the bytes around a buffer, is different."""
        read = self.bench.machine.memory.read
        torn = any(read(b.gpa, len(b.before)) != b.before for b in self.readable)
        return torn or any(
            read(b.gpa - len(GUARD), len(GUARD)) != GUARD or read(b.gpa + len(b.before), len(GUARD)) != GUARD
            for b in (*self.readable, *self.writable)
        )

    def fill(self, value: int) -> None:
        """Put *value* into every byte of every buffer."""
        for b in (*self.readable, *self.writable):
            self.bench.machine.memory.write(b.gpa, bytes([value]) * len(b.before))

    def all_bytes(self) -> bytes:
        """What is in all buffers now."""
        read = self.bench.machine.memory.read
        return b"".join(read(b.gpa, len(b.before)) for b in (*self.readable, *self.writable))


def place(bench: Bench, shape: Shape, poison: int = POISONS[0]) -> Laid:
    """Buffers for *shape* in guest memory, in no chain yet, the writable ones full of *poison*."""

    def buffer(data: bytes) -> Buffer:
        at = bench.machine.heap.take(len(data) + 2 * len(GUARD))
        bench.machine.memory.write(at, GUARD + data + GUARD)
        return Buffer(gpa=at + len(GUARD), before=data)

    out = [buffer(data) for data in shape.out]
    return Laid(bench=bench, readable=out, writable=[buffer(bytes([poison]) * length) for length in shape.in_])


def lay(bench: Bench, queue: DriverQueue, shape: Shape, poison: int = POISONS[0]) -> Laid:
    """One chain of *shape*, available to the device."""
    laid = place(bench, shape, poison)
    laid.head = queue.ring.add_chain(laid.out, laid.in_)
    queue.ring.publish()
    return laid


def drain(bench: Bench, queue: DriverQueue, count: int) -> list[tuple[int, int]]:
    """Kick and let the device work until *count* chains are back; (head, written) of those that are."""
    queue.driver.registers.notify(queue.index)
    done: list[tuple[int, int]] = []

    def look() -> int:
        done.extend(queue.ring.used())
        return len(done)

    bench.wait(lambda: look() >= count)
    look()
    return done


def give(bench: Bench, queue: DriverQueue, shape: Shape, poison: int = POISONS[0]) -> Laid:
    """Lay a chain and have it served. Raises AssertionError unless exactly that comes back."""
    laid = lay(bench, queue, shape, poison)
    take(bench, queue, laid, shape)
    return laid


def take(bench: Bench, queue: DriverQueue, laid: Laid, shape: Shape) -> None:
    """Have a chain served that is available. Raises AssertionError unless exactly that comes back."""
    done = drain(bench, queue, 1)
    heads = [head for head, _ in done]
    assert heads == [laid.head], f"queue {queue.index}: sent head {laid.head} ({shape}), got back {heads}"
    laid.written = done[0][1]


def pieces(shape: Shape, seed: int) -> Shape:
    """The same bytes in other buffers: 1, cut in two, single bytes, or cut anywhere, as *seed* says."""
    rng = random.Random(seed)
    data, room = b"".join(shape.out), shape.room
    if seed == 0:
        return Shape(out=(data,) if data else (), in_=(room,) if room else ())
    if seed == 1:  # single bytes at both ends, where headers and status are
        return Shape(out=_cut(data, [1, 2, 3, len(data) - 1]), in_=_lengths(room, [1, 2, room - 2, room - 1]))
    return Shape(
        out=_cut(data, [rng.randrange(len(data) + 1) for _ in range(3)]),
        in_=_lengths(room, [rng.randrange(room + 1) for _ in range(3)]),
    )


def _lengths(total: int, places: list[int]) -> tuple[int, ...]:
    ends = sorted({0, total, *(at for at in places if 0 < at < total)})
    return tuple(b - a for a, b in itertools.pairwise(ends))


def _cut(data: bytes, places: list[int]) -> tuple[bytes, ...]:
    at, found = 0, []
    for length in _lengths(len(data), places):
        found.append(data[at : at + length])
        at += length
    return tuple(found)
