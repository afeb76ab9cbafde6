"""The log of pages written (LOG_SHMFD): a migration's begin and end while rings run, and clients that lie."""

import os
import struct
from collections.abc import Iterator

import pytest

from acrn_dm.backends.wire.message import LOG_ALL, PROTOCOL_FEATURES, ProtocolFeature, Request
from acrn_dm.testing import DriverRing
from tests.backends.user.user_rig import Daemon
from tests.export.vhost_user.export_rig import (
    MEMORY,
    REPLY_ACK,
    USER,
    VERSION_1,
    Client,
    descriptors,
    leaving_nothing,
    mapped,
    wait_used,
)
from tests.export.vhost_user.test_devices import exported
from tests.patience import comes_true

LOGGED = REPLY_ACK | ProtocolFeature.LOG_SHMFD
LOG_BYTES = MEMORY >> 12 >> 3
REQUEST, DATA, STATUS = 0x80000, 0x90800, 0xA0000
RING = 0x10000


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "image").write_bytes(b"d" * (1 << 20))
    with exported(folder, f"virtio-blk,{folder / 'image'}") as daemon:
        client = Client.connect(daemon.socket)  # what is opened once for the life of the process
        client.negotiate(LOGGED)
        client.share_memory()
        ring, kick, _ = client.ring(0)
        read(client, ring, kick, 1)
        client.close()
        yield daemon


@pytest.fixture
def client(disk: Daemon) -> Iterator[Client]:
    """One that leaves nothing behind."""
    with leaving_nothing(disk, LOGGED) as client:
        yield client


def read(client: Client, ring: DriverRing, kick: int, count: int) -> None:
    """A page of the disk to DATA, which is the middle of one; the *count*-th request."""
    client.write(REQUEST, struct.pack("<IIQ", 0, 0, 0))
    client.write(DATA, bytes(4096))
    ring.add_chain([(REQUEST, 16)], [(DATA, 4096), (STATUS, 1)])
    ring.publish()
    os.eventfd_write(kick, 1)
    wait_used(ring, count)
    assert client.read(DATA, 4096) == b"d" * 4096


def log_file(client: Client, size: int = LOG_BYTES) -> int:
    fd = os.memfd_create("log")
    client.opened.append(fd)
    os.ftruncate(fd, size)
    return fd


def set_base(client: Client, fd: int, size: int = LOG_BYTES, offset: int = 0) -> bytes | None:
    """What it is answered, which it always is."""
    client.send(Request.SET_LOG_BASE, struct.pack("<QQ", size, offset), (fd,))
    return client.answer()


def choose(client: Client, features: int) -> None:
    client.must(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES | features))


def set_ring_log(client: Client, ring: DriverRing, *, on: bool, log: int | None = None) -> None:
    """SET_VRING_ADDR as QEMU repeats it at a migration's begin and end."""
    layout = ring.layout
    places = (USER + layout.desc, USER + layout.used, USER + layout.avail, layout.used if log is None else log)
    client.must(Request.SET_VRING_ADDR, struct.pack("<IIQQQQ", 0, on, *places))


def marked(fd: int, size: int = LOG_BYTES) -> set[int]:
    bits = int.from_bytes(os.pread(fd, size, 0), "little")
    return {page for page in range(8 * size) if bits >> page & 1}


WRITTEN = {DATA >> 12, (DATA >> 12) + 1, STATUS >> 12}


def test_migration_begins_and_ends_while_a_ring_runs(client: Client) -> None:
    """In QEMU's order: the ring is not stopped, and what it writes is marked from then until the end."""
    client.share_memory()
    ring, kick, _ = client.ring(0)
    read(client, ring, kick, 1)
    fd = log_file(client)
    assert set_base(client, fd) == bytes(8)
    choose(client, LOG_ALL)
    set_ring_log(client, ring, on=True)
    assert marked(fd) == set()
    read(client, ring, kick, 2)
    used = {ring.layout.used >> 12}
    assert comes_true(lambda: marked(fd) == WRITTEN | used)
    os.pwrite(fd, bytes(LOG_BYTES), 0)
    read(client, ring, kick, 3)
    assert comes_true(lambda: marked(fd) == WRITTEN | used)
    choose(client, 0)
    set_ring_log(client, ring, on=False)
    os.pwrite(fd, bytes(LOG_BYTES), 0)
    read(client, ring, kick, 4)
    assert client.queues() == 1
    assert marked(fd) == set()


def test_ring_that_starts_during_a_migration_is_logged_from_its_first_chain_on(client: Client) -> None:
    client.share_memory()
    fd = log_file(client)
    assert set_base(client, fd) == bytes(8)
    choose(client, LOG_ALL)
    ring, kick, _ = client.ring(0)
    read(client, ring, kick, 1)
    assert marked(fd) >= WRITTEN
    assert ring.layout.used >> 12 not in marked(fd), "its own writes are logged where VHOST_VRING_F_LOG says so"


def test_writes_of_the_used_ring_are_logged_where_the_client_says(client: Client) -> None:
    client.share_memory()
    fd = log_file(client)
    assert set_base(client, fd) == bytes(8)
    ring, kick, _ = client.ring(0)
    choose(client, LOG_ALL)
    set_ring_log(client, ring, on=True, log=0x200000)
    read(client, ring, kick, 1)
    assert comes_true(lambda: marked(fd) == WRITTEN | {0x200})


def test_log_is_replaced_while_a_ring_runs(disk: Daemon, client: Client) -> None:
    client.share_memory()
    ring, kick, _ = client.ring(0)
    old = log_file(client)
    for count in range(1, 6):
        fd = log_file(client)
        assert set_base(client, fd) == bytes(8)
        choose(client, LOG_ALL)
        set_ring_log(client, ring, on=True)
        os.pwrite(old, bytes(LOG_BYTES), 0)
        read(client, ring, kick, count)
        assert marked(fd) >= WRITTEN
        assert marked(old) == set()
        old = fd
    assert mapped(disk) == 2  # and the memory


# Hostile ones


def refused(client: Client) -> bool:
    """Whether the connection ends."""
    return client.answer() is None


def test_log_that_was_not_agreed_on_is_refused(client: Client) -> None:
    client.send(Request.SET_PROTOCOL_FEATURES, struct.pack("<Q", REPLY_ACK))
    assert set_base(client, log_file(client)) is None


@pytest.mark.parametrize("data", [b"", bytes(8), bytes(17), bytes(64)], ids=len)
def test_description_of_another_size_is_refused(client: Client, data: bytes) -> None:
    client.send(Request.SET_LOG_BASE, data, (client.fd,))
    assert refused(client)


@pytest.mark.parametrize("count", [0, 2])
def test_log_with_another_number_of_descriptors_is_refused(client: Client, count: int) -> None:
    client.send(Request.SET_LOG_BASE, struct.pack("<QQ", LOG_BYTES, 0), (client.fd, client.fd)[:count])
    assert refused(client)


@pytest.mark.parametrize("size", [1, LOG_BYTES - 1])
@pytest.mark.parametrize("running", [False, True], ids=["before", "while"])
def test_log_too_short_for_the_memory_is_refused(client: Client, size: int, running: bool) -> None:
    client.share_memory()
    if running:
        client.ring(0)
    client.send(Request.SET_LOG_BASE, struct.pack("<QQ", size, 0), (log_file(client),))
    assert client.answer() == bytes(8)
    client.send(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES | LOG_ALL), flags=9)
    if running:
        assert refused(client)
    else:
        assert client.answer() == bytes(8)
        with pytest.raises((AssertionError, BrokenPipeError, ConnectionResetError)):
            client.ring(0)


def test_client_that_shortens_the_log_of_a_running_ring_is_left(disk: Daemon, client: Client) -> None:
    client.share_memory()
    ring, kick, _ = client.ring(0)
    fd = log_file(client)
    assert set_base(client, fd) == bytes(8)
    choose(client, LOG_ALL)
    os.ftruncate(fd, 0)
    client.write(REQUEST, struct.pack("<IIQ", 0, 0, 0))
    ring.add_chain([(REQUEST, 16)], [(DATA, 4096), (STATUS, 1)])
    ring.publish()
    os.eventfd_write(kick, 1)
    assert refused(client)
    assert comes_true(lambda: mapped(disk) == 0)


def test_features_toggled_a_thousand_times_leave_nothing(disk: Daemon, client: Client) -> None:
    client.share_memory()
    ring, kick, _ = client.ring(0)
    assert set_base(client, log_file(client)) == bytes(8)
    before = descriptors(disk)
    for turn in range(1000):
        choose(client, LOG_ALL * (turn % 2))
    read(client, ring, kick, 1)
    assert descriptors(disk) == before


def test_log_s_eventfd_is_taken_and_closed(disk: Daemon, client: Client) -> None:
    assert client.queues() == 1
    before = descriptors(disk)
    client.must(Request.SET_LOG_FD, b"", (client.eventfd(),))
    assert descriptors(disk) == before
    client.send(Request.SET_LOG_FD)
    assert refused(client)
