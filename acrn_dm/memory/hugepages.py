"""Huge pages of the host for guest memory: how many there are, and more of them when they are short.

As the original: 1 GiB pages as far as they go, 2 MiB pages for the rest. The kernel's pools are shared, so between
counting and taking a lock file is held, the original's. What a pool was grown by is given back at the end.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.files.private_files import make_folder
from acrn_dm.base.records import define, frozen

log = logging.getLogger(__name__)

MIB = 1 << 20
SIZES = (1 << 30, 2 << 20)  # bytes, big ones first
SYSFS = Path("/sys/kernel/mm/hugepages")
MEMINFO = Path("/proc/meminfo")
LOCK = Path("/run/hugepage/acrn/lock")


@frozen(kw_only=True)
class Piece:
    """Part of a range of guest memory, in pages of one size."""

    gpa: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)
    page: int


@define(eq=False)
class HugePages:
    """The pools of one host."""

    sysfs: Path = SYSFS
    lock: Path = LOCK
    _grown: dict[int, int] = attrs.field(factory=dict, init=False)  # pages that were added for us, by size

    @contextlib.contextmanager
    def reserved(self, ranges: Sequence[tuple[int, int]]) -> Iterator[list[Piece]]:
        """Give the pieces to make of *ranges*, (gpa, bytes); their pages are there while the block runs.

        Raises HostError when they can't be had.
        """
        with self._locked():
            try:
                yield self._plan(ranges)
            except BaseException:
                self._shrink()
                raise

    def shortage(self, size: int) -> str | None:
        """Why *size* bytes can't be had, as far as looking tells; changes nothing."""
        small = SIZES[-1]
        if not self._pool(small).is_dir():
            return "this kernel has no huge pages of 2 MiB"
        missing = size - sum(self._free(page) * page for page in SIZES)
        growing = os.access(self._pool(small) / "nr_hugepages", os.W_OK)
        if missing <= (_available() if growing else 0):
            return None
        text = f"{-(-size // small)} huge pages of 2 MiB are needed, {self._free(small)} are free"
        return f"{text}, and the host has no memory for so many" if growing else f"{text}; run as root to make more"

    def hand_over(self) -> dict[int, int]:
        """What the pools were grown by, pages by their size, which is given back by who is told it, and not here."""
        grown, self._grown = self._grown, {}
        return {page: count for page, count in grown.items() if count}

    def take_over(self, grown: Mapping[int, int]) -> None:
        """What another has handed over is given back here."""
        self._grown = {page: self._grown.get(page, 0) + count for page, count in grown.items()}

    def give_back(self) -> None:
        """Shrink the pools by what they were grown; when the memory has been unmapped. Idempotent."""
        if any(self._grown.values()):
            with self._locked():
                self._shrink()

    def _shrink(self) -> None:
        grown, self._grown = self._grown, {}
        for page, count in grown.items():
            self._resize(page, -count)

    def _plan(self, ranges: Sequence[tuple[int, int]]) -> list[Piece]:
        pieces: list[Piece] = []
        big, small = SIZES
        wanted = sum(size // big for _, size in ranges)
        free = self._ensure(big, wanted) if wanted else 0
        for gpa, size in ranges:
            in_big = min(size // big, free)
            free -= in_big
            if in_big:
                pieces.append(Piece(gpa=gpa, size=in_big * big, page=big))
            rest = size - in_big * big
            if rest:
                pieces.append(Piece(gpa=gpa + in_big * big, size=rest, page=small))
        needed = sum(p.size for p in pieces if p.page == small) // small
        there = self._ensure(small, needed)
        if there < needed:
            hint = f"echo {self._read(small, 'nr_hugepages') + needed - there} > {self._pool(small) / 'nr_hugepages'}"
            raise HostError(f"{needed} huge pages of 2 MiB are needed, {there} are free", hint=hint)
        return pieces

    def _ensure(self, page: int, count: int) -> int:
        """Grow the pool until *count* pages are free, if it can be; return how many are."""
        free = self._free(page)
        if free < count:
            before = self._read(page, "nr_hugepages")
            self._resize(page, count - free)
            self._grown[page] = self._grown.get(page, 0) + max(0, self._read(page, "nr_hugepages") - before)
            free = self._free(page)
        return free

    def _free(self, page: int) -> int:
        """Pages that nobody has, nor has been promised."""
        return max(0, self._read(page, "free_hugepages") - self._read(page, "resv_hugepages"))

    def _resize(self, page: int, change: int) -> None:
        path = self._pool(page) / "nr_hugepages"
        try:
            path.write_text(str(max(0, self._read(page, "nr_hugepages") + change)))
        except OSError as e:
            log.debug("%s: %s", path, e.strerror)

    def _pool(self, page: int) -> Path:
        return self.sysfs / f"hugepages-{page >> 10}kB"

    def _read(self, page: int, name: str) -> int:
        try:
            return int((self._pool(page) / name).read_text())
        except (OSError, ValueError):
            return 0  # no pages of this size

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            make_folder(self.lock.parent)
            fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise HostError.from_os(f"opening {self.lock}", e, "run as root") from e
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _available() -> int:
    """Bytes of the host's memory that nobody needs; more than enough where that can't be told."""
    with contextlib.suppress(OSError, StopIteration, ValueError, IndexError):
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        return int(line.split()[1]) << 10
    return 1 << 64
