"""memory.hugepages: how ranges are cut into pieces, how pools grow and shrink, and real pages where there are any."""

import fcntl
import os
import stat
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.memory import hugepages
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from acrn_dm.memory.hugepages import HugePages, Piece
from tests.memory.real_pools import POOL

MIB, GIB = 1 << 20, 1 << 30
BIG, SMALL = GIB, 2 * MIB


@attrs.define(eq=False)
class Host:
    """A host's pools as files; a pool can be grown if ``growable``."""

    folder: Path

    @property
    def pages(self) -> HugePages:
        return HugePages(sysfs=self.folder, lock=self.folder / "lock" / "file")

    def pool(self, page: int, free: int, *, reserved: int = 0) -> None:
        pool = self.folder / f"hugepages-{page >> 10}kB"
        pool.mkdir()
        for name, value in (("nr_hugepages", free), ("free_hugepages", free), ("resv_hugepages", reserved)):
            (pool / name).write_text(f"{value}\n")

    def count(self, page: int) -> int:
        return int((self.folder / f"hugepages-{page >> 10}kB" / "nr_hugepages").read_text())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def pieces(host: Host, *ranges: tuple[int, int]) -> list[tuple[int, int, int]]:
    with host.pages.reserved(ranges) as made:
        return [(p.gpa, p.size, p.page) for p in made]


def test_big_pages_go_first_and_small_ones_fill_the_rest(host: Host) -> None:
    host.pool(BIG, 3)
    host.pool(SMALL, 1000)
    assert pieces(host, (0, 2 * GIB), (4 * GIB, GIB + 512 * MIB)) == [
        (0, 2 * GIB, BIG),
        (4 * GIB, GIB, BIG),
        (5 * GIB, 512 * MIB, SMALL),
    ]


def test_without_big_pages_all_are_small(host: Host) -> None:
    host.pool(SMALL, 1024)
    assert pieces(host, (0, 2 * GIB)) == [(0, 2 * GIB, SMALL)]


def test_pages_promised_to_others_do_not_count(host: Host) -> None:
    host.pool(SMALL, 64, reserved=1)
    with pytest.raises(HostError, match="64 huge pages of 2 MiB are needed, 63 are free; echo 66 > "):
        pieces(host, (0, 128 * MIB))


def test_pool_that_cannot_grow_says_how_many_are_missing(host: Host) -> None:
    host.pool(SMALL, 10)
    with pytest.raises(HostError, match="64 huge pages of 2 MiB are needed, 10 are free"):
        pieces(host, (0, 128 * MIB))
    assert host.count(SMALL) == 10  # what was added in vain is given back


def test_lock_is_held_while_the_pages_are_taken(host: Host) -> None:
    host.pool(SMALL, 64)
    with host.pages.reserved([(0, 128 * MIB)]):
        fd = os.open(host.folder / "lock" / "file", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)


def test_lock_that_cannot_be_made_is_a_host_error() -> None:
    with (
        pytest.raises(HostError, match=r"opening /proc/no/lock: .*; run as root"),
        HugePages(lock=Path("/proc/no/lock")).reserved([(0, SMALL)]),
    ):
        pass


@pytest.mark.process
def test_guest_memory_in_real_huge_pages_and_the_pool_as_before(real_pages: HugePages) -> None:
    before = POOL.read_text()
    memory = GuestMemory.allocate([MemoryRange(gpa=0, size=8 * MIB)], real_pages)
    (region,) = memory.regions
    assert region.hva % SMALL == 0
    memory.write(5 * MIB, b"secret")
    memory.clear()
    assert memory.read(5 * MIB, 6) == bytes(6)
    memory.write(5 * MIB, b"secret")
    memory.clear(in_place=True)
    assert memory.read(5 * MIB, 6) == bytes(6)
    with pytest.raises(PermissionError):
        os.ftruncate(region.fd, 0)
    memory.close()
    assert POOL.read_text() == before


def test_piece_shows_its_place_in_hex() -> None:
    assert repr(Piece(gpa=GIB, size=SMALL, page=SMALL)) == "Piece(gpa=0x40000000, size=0x200000, page=2097152)"


def test_folder_of_the_lock_is_private_whatever_the_umask(host: Host) -> None:
    host.pool(SMALL, 1)
    before = os.umask(0)
    try:
        pieces(host, (0, SMALL))
    finally:
        os.umask(before)
    assert stat.S_IMODE((host.folder / "lock").stat().st_mode) == 0o700


def test_shortage_is_seen_without_touching_the_pools(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = host.folder / "meminfo"
    meminfo.write_text("MemTotal: 9000000 kB\nMemAvailable: 1048576 kB\n")
    monkeypatch.setattr(hugepages, "MEMINFO", meminfo)
    assert host.pages.shortage(2 * MIB) == "this kernel has no huge pages of 2 MiB"
    host.pool(SMALL, 100)
    assert host.pages.shortage(200 * MIB) is None
    assert host.pages.shortage(200 * MIB + GIB) is None  # the pool can grow by what is available
    assert host.pages.shortage(202 * MIB + GIB) == (
        "613 huge pages of 2 MiB are needed, 100 are free, and the host has no memory for so many"
    )
    host.pool(BIG, 1)
    assert host.pages.shortage(202 * MIB + GIB) is None
    assert (host.count(SMALL), host.count(BIG)) == (100, 1)


def test_pool_that_we_may_not_grow_is_short_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.pool(SMALL, 100)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert host.pages.shortage(200 * MIB) is None
    assert host.pages.shortage(202 * MIB) == (
        "101 huge pages of 2 MiB are needed, 100 are free; run as root to make more"
    )
