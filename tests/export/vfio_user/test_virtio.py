"""Virtio devices over vfio-user: rings in the client's files, memory that changes below them, calls by its eventfds."""

import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.export.vfio_user.function import ExportedFunction
from tests.export.vfio_user.vfio_rig import EVENTFD, INTX, NONE, RESET, TRIGGER, UNMASK, count, rings
from tests.export.vfio_user.virtio_rig import BAR, BASE, DATA, NEEDS_RESET, PAGE, RAM, Driver, driver, virtio
from tests.patience import comes_true

SECTOR = 512
IN, OUT = 0, 1


@pytest.fixture
def rng(tmp_path: Path) -> Iterator[Driver]:
    with virtio("virtio-rnd", tmp_path / "s"), driver(tmp_path / "s") as it:
        it.start()
        yield it


@pytest.fixture
def disk(tmp_path: Path, image: Path) -> Iterator[Driver]:
    with virtio(f"virtio-blk,{image}", tmp_path / "s"), driver(tmp_path / "s") as it:
        it.start()
        yield it


def entropy(it: Driver, at: int, length: int = 64) -> bytes:
    """What the device puts to guest address *at*, behind an interrupt."""
    it.send(0, in_=[(at, length)])
    assert it.done(0)[0][1] == length
    assert rings(it.calls[0])
    return it.read(at, length)


def request(it: Driver, kind: int, sector: int, data: list[tuple[int, int]]) -> None:
    """Send a request to the disk; header and status are in the driver's memory."""
    header, status = it.base + DATA - 64, it.base + DATA - 32
    it.write(header, kind.to_bytes(8, "little") + sector.to_bytes(8, "little"))
    it.write(status, b"\xff")
    out, in_ = ([], data) if kind == IN else (data, [])
    it.send(0, [(header, 16), *out], [*in_, (status, 1)])


def answered(it: Driver) -> int:
    """The status of the request that was sent."""
    it.done(0)
    return it.read(it.base + DATA - 32, 1)[0]


def test_chain_is_served_and_interrupts(rng: Driver) -> None:
    first, second = (entropy(rng, BASE + DATA + 64 * n) for n in range(2))
    assert len({first, second, bytes(64)}) == 3


def test_disk_is_read_and_written(disk: Driver, image: Path) -> None:
    request(disk, IN, 8, [(BASE + DATA, PAGE)])
    assert answered(disk) == 0
    assert disk.read(BASE + DATA, PAGE) == image.read_bytes()[PAGE : 2 * PAGE]
    disk.write(BASE + DATA, b"7" * PAGE)
    request(disk, OUT, 16, [(BASE + DATA, PAGE)])
    assert answered(disk) == 0
    assert image.read_bytes()[2 * PAGE : 3 * PAGE] == b"7" * PAGE


def test_ring_goes_on_while_other_memory_comes_and_goes(rng: Driver) -> None:
    other = rng.client.memfd(PAGE)
    for _ in range(8):
        assert not rng.client.map(0x4000_0000, PAGE, other)
        rng.send(0, in_=[(0x4000_0000, 32)])
        assert rng.done(0)[0][1] == 32
        assert not rng.client.unmap(0x4000_0000, PAGE)
        entropy(rng, BASE + DATA)
    assert os.pread(other, 32, 0) != bytes(32)


def test_buffer_in_memory_that_is_gone_costs_the_driver_a_reset(rng: Driver) -> None:
    other = rng.client.memfd(PAGE)
    assert not rng.client.map(0x4000_0000, PAGE, other)
    assert not rng.client.unmap(0x4000_0000, PAGE)
    rng.send(0, in_=[(0x4000_0000, 32)])
    assert comes_true(lambda: rng.status & NEEDS_RESET)
    assert os.pread(other, PAGE, 0) == bytes(PAGE)
    assert not rng.client.unmap(BASE, RAM)
    rng.start()
    entropy(rng, BASE + DATA)


@pytest.mark.parametrize("late", [False, True])
def test_kick_of_a_ring_in_memory_that_is_gone_costs_the_driver_a_reset(tmp_path: Path, late: bool) -> None:
    """Be it that it comes with the change, or behind it."""
    with virtio("virtio-rnd", tmp_path / "s") as exported, driver(tmp_path / "s") as it:
        it.start()
        assert not it.client.unmap(BASE, RAM)
        assert it.status == 15
        if late:
            assert comes_true(lambda: exported.function.data_plane._lost is not None)  # type: ignore[attr-defined]
        it.kick(0)
        assert comes_true(lambda: it.status & NEEDS_RESET)
        it.start()
        entropy(it, BASE + DATA)


def test_memory_that_moves_below_a_ring_is_the_new_one(rng: Driver) -> None:
    """As QEMU does at each change of the PAM registers: the same place comes back, perhaps elsewhere in a file."""
    moved = rng.client.memfd(2 * RAM)
    entropy(rng, BASE + DATA)
    os.pwrite(moved, rng.ram[:], RAM)
    assert not rng.client.unmap(BASE, RAM)
    assert not rng.client.map(BASE, RAM // 2, moved, RAM)
    assert not rng.client.map(BASE + RAM // 2, RAM // 2, moved, RAM + RAM // 2)
    old, rng.ram = rng.ram, mmap.mmap(moved, RAM, offset=RAM)
    before = old[:]
    entropy(rng, BASE + DATA + 64)
    assert old[:] == before
    old.close()


def test_pages_of_an_iommu_hold_one_buffer(disk: Driver, image: Path) -> None:
    """Each page is mapped alone, out of order in its file, for the request and not longer."""
    pages = disk.client.memfd(32 * PAGE)
    order = random.Random(2).sample(range(32), 32)
    for n, page in enumerate(order):
        assert not disk.client.map(0x8000_0000 + n * PAGE, PAGE, pages, page * PAGE)
    request(disk, IN, 0, [(0x8000_0000, 32 * PAGE)])
    assert answered(disk) == 0
    read = b"".join(os.pread(pages, PAGE, page * PAGE) for page in order)
    assert read == image.read_bytes()[: 32 * PAGE]
    assert not disk.client.unmap(0x8000_0000, 32 * PAGE)
    request(disk, IN, 0, [(0x8000_0000, PAGE)])
    assert comes_true(lambda: disk.status & NEEDS_RESET)


def test_memory_that_is_only_read_is_read_only(disk: Driver, image: Path) -> None:
    pages = disk.client.memfd(PAGE)
    os.pwrite(pages, b"r" * PAGE, 0)
    assert not disk.client.map(0x8000_0000, PAGE, pages, flags=1)
    request(disk, OUT, 0, [(0x8000_0000, PAGE)])
    assert answered(disk) == 0
    assert image.read_bytes()[:PAGE] == b"r" * PAGE
    request(disk, IN, 8, [(0x8000_0000, PAGE)])
    assert comes_true(lambda: disk.status & NEEDS_RESET)
    assert os.pread(pages, PAGE, 0) == b"r" * PAGE


def test_ring_without_a_file_is_refused_and_the_log_says_what_helps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with virtio("virtio-rnd", tmp_path / "s"), driver(tmp_path / "s") as it:
        it.client.map(0x8000_0000, RAM)
        it.base = 0x8000_0000
        it.negotiate()
        it.set_up(0)
        it.client.write(BAR, 0x14, 15, 1)
        assert comes_true(lambda: it.status & NEEDS_RESET)
        assert "share=on" in caplog.text


def test_pin_is_told_of_until_the_driver_has_looked(rng: Driver) -> None:
    assert not rng.client.irqs(2, NONE | 32, 0, 0)  # MSI-X off
    line = rng.client.eventfd(INTX)
    for _ in range(3):
        rng.send(0, in_=[(BASE + DATA, 8)])
        assert rings(line)
        assert rng.client.read(BAR, 0x1000, 1) == 1
        assert not rng.client.irqs(INTX, NONE | UNMASK)
        assert count(line) == 0


def test_vector_that_is_masked_is_pending(rng: Driver) -> None:
    assert not rng.client.irqs(2, 4 | 32, 0, 1)
    rng.send(0, in_=[(BASE + DATA, 8)])
    rng.done(0)
    pba = 4096
    assert comes_true(lambda: rng.client.read(1, pba, 8) == 1)
    again = rng.client.eventfd(2, 0)
    assert rings(again)
    assert rng.client.read(1, pba, 8) == 0


def test_eventfd_that_replaces_another_has_the_calls(rng: Driver) -> None:
    old, rng.calls[0] = rng.calls[0], rng.client.eventfd(2, 0)
    entropy(rng, BASE + DATA)
    assert count(old) == 0


def test_next_client_finds_the_device_as_after_power_on(tmp_path: Path, image: Path) -> None:
    with virtio(f"virtio-blk,{image}", tmp_path / "s") as exported:
        for _ in range(3):
            with driver(tmp_path / "s") as it:
                assert it.status == 0
                it.start()
                request(it, IN, 0, [(BASE + DATA, PAGE)])
                assert answered(it) == 0
        assert comes_true(lambda: mapped(exported) == 0)


def mapped(exported: ExportedFunction) -> int:
    return len(exported.memory._ranges)


def test_device_that_is_reset_by_its_client_forgets_its_driver(rng: Driver) -> None:
    entropy(rng, BASE + DATA)
    assert not rng.client.ask(RESET).error
    assert rng.status == 0
    assert not rng.client.unmap(BASE, RAM)
    rng.start()
    entropy(rng, BASE + DATA)


def test_calls_go_to_the_client_without_python(
    tmp_path: Path, image: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with virtio(f"virtio-blk,{image}", tmp_path / "s") as exported, driver(tmp_path / "s") as it:
        monkeypatch.setattr(exported.irqs, "inject_msi", None)
        it.start()
        for n in range(20):
            request(it, IN, n, [(BASE + DATA, SECTOR)])
            assert rings(it.calls[0])
            assert answered(it) == 0
        (relay,) = exported.irqs._relays.values()
        assert relay.passed == 20
    assert not caplog.records


def test_no_call_is_lost_while_its_vector_is_masked_and_unmasked(rng: Driver) -> None:
    for n in range(200):
        rng.send(0, in_=[(BASE + DATA, 8)])
        assert not rng.client.irqs(2, EVENTFD | TRIGGER, 0, 1)
        rng.calls[0] = rng.calls[0] if n % 2 else rng.client.eventfd(2, 0)
        if n % 2:
            assert not rng.client.irqs(2, EVENTFD | TRIGGER, 0, 1, (rng.calls[0],))
        rng.done(0)
        # Before the mask it came by the old eventfd, else by the one that was given.
        assert comes_true(lambda: any(count(fd) for fd in {*rng.client.fds[1:]})), n


def test_full_eventfd_of_the_client_holds_nobody_up(rng: Driver) -> None:
    os.set_blocking(rng.calls[0], True)
    os.eventfd_write(rng.calls[0], (1 << 64) - 2)
    for _ in range(3):
        rng.send(0, in_=[(BASE + DATA, 8)])
        assert rng.done(0)
    os.set_blocking(rng.calls[0], False)
    assert count(rng.calls[0]) >= (1 << 64) - 2
    entropy(rng, BASE + DATA)
