"""Writes of which the client is told: before its driver sees them, all of them, and for as long as it answers."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.export.vfio_user import dma
from tests.export.vfio_user.vfio_rig import DMA_WRITE, HEADER, REPLY, rings
from tests.export.vfio_user.virtio_rig import BASE, DATA, Driver, driver, virtio

SECTOR = 512


@pytest.fixture
def disk(tmp_path: Path, image: Path) -> Iterator[Driver]:
    with virtio(f"virtio-blk,{image}", tmp_path / "s", tells_writes=True), driver(tmp_path / "s") as it:
        it.start()
        yield it


def read(it: Driver, at: int, length: int) -> None:
    """Have the disk read its first *length* bytes to guest address *at*."""
    header, status = BASE + DATA - 64, BASE + DATA - 32
    it.write(header, bytes(16))
    it.write(status, b"\xff")
    it.send(0, [(header, 16)], [(at, length), (status, 1)])


def told(it: Driver) -> tuple[int, bytes]:
    """What the client is told of next, which it says that it has written."""
    ident, command, _, _, body = it.client.next()
    assert command == DMA_WRITE
    address, count = struct.unpack_from("<QQ", body)
    assert len(body) == 16 + count
    it.client.socket.sendall(HEADER.pack(ident, command, HEADER.size + 16, REPLY, 0) + body[:16])
    return address, body[16:]


def test_all_that_is_read_is_told_before_the_driver_sees_it(disk: Driver, image: Path) -> None:
    read(disk, BASE + DATA, 8 * SECTOR)
    ident, command, _, _, body = disk.client.next()
    assert (command, *struct.unpack_from("<QQ", body)) == (DMA_WRITE, BASE + DATA, 8 * SECTOR)
    assert body[16:] == disk.read(BASE + DATA, 8 * SECTOR) == image.read_bytes()[: 8 * SECTOR]
    assert disk.used(0) == []
    disk.client.socket.sendall(HEADER.pack(ident, command, HEADER.size + 16, REPLY, 0) + body[:16])
    assert told(disk) == (BASE + DATA - 32, b"\0")
    assert [written for _, written in disk.done(0)] == [8 * SECTOR + 1]
    assert rings(disk.calls[0])


def test_what_is_more_than_a_message_takes_is_told_in_parts(tmp_path: Path, image: Path) -> None:
    path = tmp_path / "s"
    with virtio(f"virtio-blk,{image}", path, tells_writes=True) as exported, driver(path) as it:
        it.start()
        assert exported.memory.messages is not None
        exported.memory.messages.most = 3 * SECTOR
        read(it, BASE + DATA, 8 * SECTOR)
        parts = [told(it) for _ in range(3)]
        assert [len(data) for _, data in parts] == [3 * SECTOR, 3 * SECTOR, 2 * SECTOR]
        assert b"".join(data for _, data in parts) == image.read_bytes()[: 8 * SECTOR]
        told(it)
        it.done(0)


def test_client_that_does_not_answer_keeps_no_request(disk: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dma, "TELL_S", 0.05)
    read(disk, BASE + DATA, SECTOR)
    assert [written for _, written in disk.done(0)] == [SECTOR + 1]
