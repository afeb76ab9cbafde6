"""Clients that break each rule with a virtio device whose rings run: nothing of theirs is touched that they have taken
back, and the next one is served.
"""

import contextlib
import functools
import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.export.vfio_user.function import ExportedFunction
from acrn_dm.virtio.pci import modern
from tests.devices.virtio_blk.stuck import stuck
from tests.export.vfio_user.test_virtio import IN, answered, entropy, request
from tests.export.vfio_user.vfio_rig import DMA_MAP, HEADER, NO_REPLY, WRITE, Client, rings
from tests.export.vfio_user.virtio_rig import BAR, BASE, DATA, NEEDS_RESET, PAGE, RAM, Driver, driver, virtio
from tests.patience import comes_true

EEXIST, ENOSPC = 17, 28
SECTOR = 512
ELSEWHERE = 0x8000_0000


@pytest.fixture(params=["", ",strict=on"], ids=["native", "python"])
def served_rng(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ExportedFunction, Driver]]:
    with virtio(f"virtio-rnd{request.param}", tmp_path / "s") as exported, driver(tmp_path / "s") as it:
        it.start()
        yield exported, it


@pytest.fixture
def rng(served_rng: tuple[ExportedFunction, Driver]) -> Driver:
    return served_rng[1]


@pytest.fixture(params=["auto", "threads", "python"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, image: Path) -> Iterator[tuple[ExportedFunction, Driver]]:
    with virtio(f"virtio-blk,{image},aio={request.param}", tmp_path / "s") as exported, driver(tmp_path / "s") as it:
        it.start()
        yield exported, it


def assert_next_is_served(path: Path) -> None:
    with driver(path) as it:
        assert it.status == 0
        it.start()
        it.send(0, in_=[(BASE + DATA, 64)])
        assert it.done(0)


def assert_left(client: Client) -> None:
    with pytest.raises((EOFError, ConnectionResetError)):
        for _ in iter(client.next, None):
            pass


@pytest.mark.parametrize("left", [0, DATA // 2], ids=["rings", "buffers"])
def test_memory_that_is_shortened_below_a_ring_costs_its_client_the_connection(
    rng: Driver, tmp_path: Path, left: int
) -> None:
    rng.rings[0].add_chain([], [(BASE + DATA, 64)])
    rng.rings[0].publish()
    os.ftruncate(rng.fd, left)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        rng.kick(0)
    assert_left(rng.client)
    assert_next_is_served(tmp_path / "s")


def test_overlap_is_refused_and_the_ring_goes_on(rng: Driver) -> None:
    other = rng.client.memfd(RAM)
    for address, size in ((BASE, RAM), (BASE + RAM - PAGE, 2 * PAGE), (BASE - PAGE, RAM + 2 * PAGE), (BASE + 5, 1)):
        assert rng.client.map(address, size, other) == EEXIST
        assert rng.client.map(address, size) == EEXIST
        entropy(rng, BASE + DATA)
    assert os.pread(other, RAM, 0) == bytes(RAM)


def test_memory_that_was_unmapped_under_load_is_not_touched_any_more(disk: tuple[ExportedFunction, Driver]) -> None:
    """Requests are taken, and answered, before DMA_UNMAP is; the others are the driver's fault."""
    _, it = disk
    pages = it.client.memfd(16 * PAGE)
    for number in range(20):
        assert not it.client.map(ELSEWHERE, 16 * PAGE, pages)
        for n in range(5):
            at = BASE + DATA + 64 * n
            it.write(at, struct.pack("<QQ", IN, 8 * n))
            it.rings[0].add_chain([(at, 16)], [(ELSEWHERE + n * PAGE, PAGE), (at + 32, 1)])
        it.rings[0].publish()
        it.kick(0)
        if number % 2:
            it.done(0, 5)
        assert not it.client.unmap(ELSEWHERE, 16 * PAGE)
        os.pwrite(pages, b"u" * 16 * PAGE, 0)
        back = 5 if number % 2 else 0
        while back < 5 and not it.status & NEEDS_RESET:
            back += len(it.used(0))
        if back < 5:
            assert not it.client.unmap(BASE, RAM)
            it.start()
        assert os.pread(pages, 16 * PAGE, 0) == b"u" * 16 * PAGE


def test_what_the_host_does_not_finish_keeps_its_memory_and_costs_a_reset(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acrn_dm.export.vfio_user.function.PAUSE_S", 0.1)
    with (
        stuck("preadv") as host,
        virtio(f"virtio-blk,{image},aio=python", tmp_path / "s") as exported,
        driver(tmp_path / "s") as it,
    ):
        it.start()
        pages = it.client.memfd(64 * PAGE)
        assert not it.client.map(ELSEWHERE, 64 * PAGE, pages)
        request(it, IN, 0, [(ELSEWHERE, 64 * PAGE)])
        assert host.entered.wait(30)
        began = time.monotonic()
        assert not it.client.unmap(ELSEWHERE, 64 * PAGE)
        assert time.monotonic() - began < 5  # QEMU's patience
        assert it.status & NEEDS_RESET
        assert is_mapped(pages)
        host.release.set()
        assert comes_true(lambda: not exported.function.busy)
        assert not it.client.map(ELSEWHERE, PAGE, pages)
        assert not it.client.unmap(ELSEWHERE, PAGE)
        assert not is_mapped(pages)
        settle(exported)
        assert exported.function.data_plane._paused is not None  # type: ignore[attr-defined]
        assert not it.client.unmap(BASE, RAM)
        it.start()
        request(it, IN, 0, [(BASE + DATA, PAGE)])
        assert answered(it) == 0


def settle(exported: ExportedFunction) -> None:
    """The loop has done what it was to do soon."""
    done = threading.Event()
    exported.main_loop.call_soon(done.set)
    assert done.wait(30)


def mappings() -> str:
    """Of this process, which is also the server."""
    return Path("/proc/self/maps").read_text()


def is_mapped(fd: int) -> bool:
    return f" {os.fstat(fd).st_ino} " in mappings()


def test_client_that_leaves_while_the_host_is_stuck_leaves_its_memory_until_it_is_not(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acrn_dm.export.vfio_user.function.RESET_S", 0.1)
    with stuck("preadv") as host, virtio(f"virtio-blk,{image},aio=python", tmp_path / "s") as exported:
        with driver(tmp_path / "s") as it:
            it.start()
            request(it, IN, 0, [(BASE + DATA, 64 * PAGE)])
            assert host.entered.wait(30)
        with driver(tmp_path / "s") as it:
            assert it.status & 15
            host.release.set()
            assert comes_true(lambda: it.status == 0)
            it.start()
            request(it, IN, 0, [(BASE + DATA, PAGE)])
            assert answered(it) == 0
        assert comes_true(lambda: not exported.memory.generations._left)


def test_doorbells_without_end_leave_room_for_the_others(rng: Driver) -> None:
    payload = struct.pack("<QII", modern.NOTIFY_OFFSET, BAR, 2) + bytes(2)
    wrong = struct.pack("<QII", modern.NOTIFY_OFFSET + 4 * 9, BAR, 2) + bytes(2)
    flood = b"".join(
        HEADER.pack(n, WRITE, HEADER.size + 18, NO_REPLY, 0) + (wrong if n % 3 else payload) for n in range(3000)
    )
    for _ in range(5):
        rng.client.socket.sendall(flood)
        entropy(rng, BASE + DATA)
    assert rng.status == 15


def looked(exported: ExportedFunction) -> None:
    """Wait until the loop has done what it was told of: it looks at each ring by itself when the driver begins."""
    loop = exported._loops.get("io")
    for _ in range(2):  # what came with the first may be done behind it
        done = threading.Event()
        loop.call_soon(done.set)
        assert done.wait(30)


def test_doorbell_that_comes_in_halves_counts_when_it_is_whole(served_rng: tuple[ExportedFunction, Driver]) -> None:
    exported, rng = served_rng
    looked(exported)
    rng.rings[0].add_chain([], [(BASE + DATA, 64)])
    rng.rings[0].publish()
    entropy_before = rng.ram[DATA : DATA + 64]
    payload = struct.pack("<QII", modern.NOTIFY_OFFSET, BAR, 2) + bytes(2)
    message = HEADER.pack(1, WRITE, HEADER.size + len(payload), NO_REPLY, 0) + payload
    for byte in message[:-1]:
        rng.client.socket.sendall(bytes([byte]))
    assert rng.used(0) == []
    rng.client.socket.sendall(message[-1:])
    assert rng.done(0)
    assert rings(rng.calls[0])
    assert rng.ram[DATA : DATA + 64] != entropy_before


def test_client_that_leaves_within_a_map_leaves_nothing(rng: Driver, tmp_path: Path) -> None:
    payload = struct.pack("<IIQQQ", 32, 3, 0, ELSEWHERE, PAGE)
    rng.client.socket.sendall(HEADER.pack(1, DMA_MAP, HEADER.size + len(payload), 0, 0) + payload[:20])
    rng.client.close()
    assert_next_is_served(tmp_path / "s")


def test_thousands_of_changes_below_a_ring_leave_nothing(rng: Driver) -> None:
    other = rng.client.memfd(PAGE)
    descriptors = len(os.listdir("/proc/self/fd"))
    maps = mappings().count("\n")
    for n in range(500):
        assert not rng.client.map(ELSEWHERE, PAGE, other, flags=1 + 2 * (n % 2))
        rng.kick(0)
        assert not rng.client.unmap(0 if n % 3 == 0 else ELSEWHERE, 2**64 - 1 if n % 3 == 0 else PAGE)
        if n % 3 == 0:
            assert not rng.client.map(BASE, RAM, rng.fd)
            if rng.status & NEEDS_RESET:
                assert not rng.client.unmap(BASE, RAM)
                rng.start()
    assert comes_true(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + len(rng.client.fds))
    assert mappings().count("\n") <= maps + 40


def test_as_many_ranges_as_there_may_be_are_walked(rng: Driver) -> None:
    """Those that the ring does not see yet come in one burst, as they do before a driver is ready."""
    page = rng.client.memfd(PAGE)
    rng.client.write(BAR, 0x14, 0, 1)
    assert comes_true(lambda: rng.status == 0)
    for n in range(8190):
        error = rng.client.map(ELSEWHERE + PAGE * n, PAGE, page)
        assert error == 0
    assert not rng.client.map(ELSEWHERE - PAGE, PAGE, page)
    assert rng.client.map(ELSEWHERE - 2 * PAGE, PAGE, page) == ENOSPC
    assert not rng.client.unmap(BASE, RAM)
    rng.start()
    rng.send(0, in_=[(ELSEWHERE + PAGE * 5000 + 100, 64)])
    assert rng.done(0)
    assert os.pread(page, 64, 100) != bytes(64)


@pytest.mark.parametrize("seed", range(4))
def test_noise_in_rings_and_maps_harms_nobody(tmp_path: Path, image: Path, seed: int) -> None:
    dice = random.Random(seed)
    with virtio(f"virtio-blk,mq=2,{image}", tmp_path / "s"):
        for _ in range(8):
            with driver(tmp_path / "s") as it, contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
                it.start((0, 1))
                for _ in range(30):
                    dice.choice(attacks(it, dice))()
        with driver(tmp_path / "s") as it:
            it.start()
            request(it, IN, 0, [(BASE + DATA, PAGE)])
            assert answered(it) == 0
            assert it.read(BASE + DATA, PAGE) == image.read_bytes()[:PAGE]


def attacks(it: Driver, dice: random.Random) -> list[Callable[[], object]]:
    client = it.client
    at = PAGE * dice.randrange(RAM // PAGE)
    return [
        functools.partial(it.write, BASE + at, dice.randbytes(PAGE)),
        functools.partial(it.kick, dice.randrange(3)),
        functools.partial(client.map, ELSEWHERE + at, PAGE * dice.randrange(1, 4), it.fd, at),
        functools.partial(client.unmap, ELSEWHERE, dice.choice((PAGE, RAM))),
        functools.partial(client.unmap, BASE, dice.choice((PAGE, RAM))),
        functools.partial(client.map, BASE, RAM, it.fd),
        functools.partial(client.write, BAR, dice.randrange(0, 0x40, 4), dice.getrandbits(32)),
        functools.partial(client.write, BAR, 0x14, dice.choice((0, 15)), 1),
    ]
