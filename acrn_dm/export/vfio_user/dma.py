"""The client's memory as DMA_MAP and DMA_UNMAP tell of it, which changes at any time while the device runs.

A range with a file is mapped and copied from and to; one without is reached by messages. ``read`` and ``write`` look
their addresses up in each access, under the lock under which ranges go. Rings walk ``map``, which has the ranges with
files; they stop for each change of it (``memory.generations``). So what has been unmapped is not touched any more when
DMA_UNMAP is answered. Where the client has shortened a file under its range there are zeros.
"""

import bisect
import contextlib
import errno
import logging
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

import attrs

from acrn_dm._fastring import MemoryMap
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.message import Refused
from acrn_dm.base.errors import GuestError
from acrn_dm.base.events.eventfd import drain
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.process import _shortened
from acrn_dm.base.process.core_dumps import leave_out
from acrn_dm.base.records import frozen
from acrn_dm.export.vfio_user.parsing import MapRequest, UnmapRequest
from acrn_dm.memory.generations import Generations
from acrn_dm.memory.guest_memory import GuestMemory

log = logging.getLogger(__name__)

TELL_S = 2.5  # less than what a change of memory waits for rings


class Messages(Protocol):
    """Messages that move what is not mapped here, ``most`` bytes at a time."""

    most: int

    def read(self, address: int, count: int) -> bytes:
        """Raises GuestError."""

    def write(self, address: int, data: bytes, seconds: float = ...) -> None:
        """Raises GuestError, where it takes longer, too."""

    def abort(self) -> None:
        """Who waits for the client waits in vain."""


@frozen(kw_only=True, eq=False)
class DmaRange:
    """One DMA_MAP; without *mapping* it is reached by messages. *shift*: where its first byte is in the mapping.
    *watch* is of ``_shortened``.
    """

    start: int = attrs.field(repr=hex)
    end: int = attrs.field(repr=hex)
    flags: int
    mapping: mmap.mmap | None = attrs.field(repr=False)
    shift: int
    watch: int = attrs.field(repr=False)

    @property
    def part(self) -> tuple[int, memoryview]:
        """What a ring's map has of it; there is a mapping."""
        assert self.mapping is not None
        return self.start, memoryview(self.mapping)[self.shift :]

    def close(self) -> None:
        """Unmap."""
        if self.mapping is not None:
            _shortened.unwatch(self.watch)
            self.mapping.close()


class DmaMemory(GuestMemory):
    """Memory of the client as devices have it. Ranges change on the main loop's thread; rings go on when all messages
    that are there have been taken, for a client splits a range by several of them.

    *dumped*: core dumps of this process have it. *tells*: the client hears of what rings have devices write.
    *shortened* is an eventfd that is signalled when the client has taken memory away that was then touched.
    """

    def __init__(self, main_loop: IoLoop, *, dumped: bool = False, tells: bool = False) -> None:
        super().__init__(
            (),
            MemoryMap([]),
            keeper="the client",
            generations=Generations(main_loop.call_soon),
            tell_writes=self._tell if tells else None,
        )
        self.messages: Messages | None = None
        self.shortened = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._dumped = dumped
        self._guard = threading.Lock()
        self._starts: list[int] = []
        self._ranges: list[DmaRange] = []
        self._outdated = False

    @property
    def map(self) -> MemoryMap:
        """The ranges with files; made when somebody wants it, for a client's firmware changes them a lot."""
        with self._guard:
            if self._outdated:
                files = [each for each in self._ranges if each.mapping is not None]
                self._map = MemoryMap(
                    [each.part for each in files if each.flags & wire.MAP_WRITE],
                    readable=[each.part for each in files if not each.flags & wire.MAP_WRITE],
                )
                self._outdated = False
            return self._map

    @property
    def unreachable(self) -> bool:
        """Whether there is memory that rings can't be in: the client has it in no file."""
        with self._guard:
            return any(each.mapping is None and each.flags & wire.MAP_WRITE for each in self._ranges)

    def insert(self, request: MapRequest, fd: int | None) -> None:
        """DMA_MAP; *fd* stays the caller's. Raises Refused, and then nothing has changed."""
        end = request.address + request.size
        with self._guard:
            at = bisect.bisect_left(self._starts, end)
            if at and self._ranges[at - 1].end > request.address:
                raise Refused(f"{request.size:#x} bytes at {request.address:#x} overlap others", errno.EEXIST)
        if len(self._ranges) == wire.MAX_MAPS:
            raise Refused(f"more than {wire.MAX_MAPS} maps", errno.ENOSPC)
        mapping, shift, watch = None, 0, -1
        if fd is not None:
            mapping, shift = _mapped(request, fd, dumped=self._dumped)
            watch = _watched(mapping, self.shortened)
        flags = request.flags
        new = DmaRange(start=request.address, end=end, flags=flags, mapping=mapping, shift=shift, watch=watch)
        with self._changed([new]), self._guard:
            self._starts.insert(at, new.start)
            self._ranges.insert(at, new)

    def remove(self, request: UnmapRequest) -> None:
        """DMA_UNMAP: all ranges inside go; that there is none is fine, since clients with an IOMMU ask for more than
        they have mapped.
        """
        end = request.address + request.size
        first = bisect.bisect_left(self._starts, request.address)
        behind = first
        while behind < len(self._ranges) and self._ranges[behind].end <= end:
            behind += 1
        gone = self._ranges[first:behind]
        with self._changed(gone):
            with self._guard:
                del self._ranges[first:behind], self._starts[first:behind]
            for each in gone:
                self.generations.release(each.close)

    @contextlib.contextmanager
    def _changed(self, ranges: Sequence[DmaRange]) -> Iterator[None]:
        """A change of *ranges*, for which rings stop where they see it."""
        if all(each.mapping is None for each in ranges):
            yield
            return
        with self.generations.change():
            with self._guard:
                before, self._map, self._outdated = self._map, MemoryMap([]), True
            self.generations.release(before.close)
            yield

    def give_up(self) -> None:
        """What waits for the client comes to nothing: it waits for us."""
        if self.messages is not None:
            self.messages.abort()

    def forget(self) -> None:
        """The client is gone."""
        self.messages = None
        self.remove(UnmapRequest(address=0, size=wire.ADDRESS_LIMIT))
        drain(self.shortened)

    def close(self) -> None:
        """Forget it for good. Idempotent."""
        if self.shortened >= 0:
            self.forget()
            os.close(self.shortened)
            self.shortened = -1
        super().close()

    def read(self, gpa: int, length: int) -> bytes:
        """Raises GuestError, before anything is read, where not all of it may be."""
        self._check(gpa, length, wire.MAP_READ)
        parts, at, end = [], gpa, gpa + length
        while at < end:
            part = self._read_mapped(at, end)
            if isinstance(part, int):
                part = self._by_messages().read(at, part)
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Raises GuestError, before anything is written, where not all of it may be."""
        left = bytes(data)
        self._check(gpa, len(left), wire.MAP_WRITE)
        done = 0
        while done < len(left):
            count, moved = self._write_mapped(gpa + done, left, done)
            if not moved:
                self._by_messages().write(gpa + done, left[done : done + count])
            done += count

    def _tell(self, parts: Sequence[tuple[int, int]]) -> None:
        """Have the client write what is there to the same place. It is told no more of them when it does not answer: it
        may wait for us.
        """
        try:
            for gpa, length in parts:
                for at in range(gpa, gpa + length, self._by_messages().most):
                    data = self.read(at, min(self._by_messages().most, gpa + length - at))
                    self._by_messages().write(at, data, TELL_S)
        except GuestError as e:
            log.info("the client was not told what was written: %s", e)

    def _check(self, gpa: int, length: int, flag: int) -> None:
        if gpa < 0 or length < 0 or gpa + length > wire.ADDRESS_LIMIT:
            raise GuestError(f"{length:#x} bytes at {gpa:#x} are no memory")
        at, end = gpa, gpa + length
        with self._guard:
            while at < end:
                at = self._find(at, flag).end

    def _find(self, address: int, flag: int) -> DmaRange:
        """The range of *address*, with the guard held. Raises GuestError."""
        at = bisect.bisect_right(self._starts, address) - 1
        if at < 0 or self._ranges[at].end <= address or not self._ranges[at].flags & flag:
            raise GuestError(f"{address:#x} is no memory that the device may {'read' if flag == 1 else 'write'}")
        return self._ranges[at]

    def _read_mapped(self, address: int, end: int) -> bytes | int:
        """What is at *address*, or how much of it to ask for."""
        with self._guard:
            found = self._find(address, wire.MAP_READ)
            count = min(end, found.end) - address
            if found.mapping is None:
                return min(count, self._by_messages().most)
            first = found.shift + address - found.start
            return found.mapping[first : first + count]

    def _write_mapped(self, address: int, data: bytes, done: int) -> tuple[int, bool]:
        """Put what of *data* from *done* on fits there; returns how much that is, and whether it was done."""
        with self._guard:
            found = self._find(address, wire.MAP_WRITE)
            count = min(len(data) - done, found.end - address)
            if found.mapping is None:
                return min(count, self._by_messages().most), False
            first = found.shift + address - found.start
            found.mapping[first : first + count] = data[done : done + count]
            return count, True

    def _by_messages(self) -> Messages:
        if self.messages is None:
            raise GuestError("DMA without a client")
        return self.messages


def _mapped(request: MapRequest, fd: int, *, dumped: bool) -> tuple[mmap.mmap, int]:
    """The mapping, and where in it the range begins. Raises Refused."""
    shift = request.offset % mmap.ALLOCATIONGRANULARITY
    prot = mmap.PROT_READ | (mmap.PROT_WRITE if request.flags & wire.MAP_WRITE else 0)
    try:
        if os.fstat(fd).st_size < request.offset + request.size:
            raise Refused(f"{request.size:#x} bytes at offset {request.offset:#x} are longer than their file")
        mapping = mmap.mmap(fd, shift + request.size, mmap.MAP_SHARED, prot, offset=request.offset - shift)
        if not dumped:
            leave_out(mapping)
    except OSError as e:
        raise Refused(f"{request.size:#x} bytes can't be mapped", e.errno or errno.EINVAL) from e
    except (OverflowError, ValueError) as e:
        raise Refused(f"{request.size:#x} bytes can't be mapped: {e}") from e
    return mapping, shift


def _watched(mapping: mmap.mmap, shortened: int) -> int:
    """See ``_shortened``. Raises Refused, and then the mapping is gone."""
    try:
        return _shortened.watch(mapping, shortened)
    except OverflowError as e:
        mapping.close()
        raise Refused(str(e), errno.ENOSPC) from e
