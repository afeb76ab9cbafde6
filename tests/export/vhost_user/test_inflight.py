"""Notes of what is in flight (INFLIGHT_SHMFD): the region, and clients that lie about it."""

import fcntl
import os
import random
import socket
import struct
from collections.abc import Iterator

import pytest

from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, ProtocolFeature, Request
from acrn_dm.testing.driver import PACKED
from tests.backends.user.user_rig import Daemon
from tests.export.vhost_user.export_rig import (
    HEADER,
    MEMORY,
    REPLY_ACK,
    VERSION_1,
    Client,
    leaving_nothing,
    mapped,
    quiet_descriptors,
    wait_descriptors,
    wait_used,
)
from tests.export.vhost_user.test_devices import exported
from tests.patience import comes_true

NOTES = REPLY_ACK | ProtocolFeature.INFLIGHT_SHMFD
QUEUES, ENTRIES, SPLIT_PART = 2, 64, 16 + 16 * 64 + 48  # a multiple of 64
REQUEST, STATUS = 0x80000, 0x90000
FLUSH = struct.pack("<IIQ", 4, 0, 0)
TOP = (1 << 64) - 1


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "image").write_bytes(bytes(1 << 20))
    with exported(folder, f"virtio-blk,mq={QUEUES},{folder / 'image'}") as daemon:
        client = Client.connect(daemon.socket)  # what is opened once for the life of the process
        client.negotiate(NOTES)
        client.share_memory()
        flush(client, *client.ring(0)[:2], 1)
        client.close()
        yield daemon


@pytest.fixture
def client(disk: Daemon) -> Iterator[Client]:
    """One that leaves nothing behind."""
    with leaving_nothing(disk, NOTES) as client:
        yield client


def flush(client: Client, ring: object, kick: int, count: int) -> None:
    client.write(REQUEST, FLUSH)
    ring.add_chain([(REQUEST, 16)], [(STATUS, 1)])  # type: ignore[attr-defined]
    ring.publish()  # type: ignore[attr-defined]
    os.eventfd_write(kick, 1)
    wait_used(ring, count)  # type: ignore[arg-type]


def get_region(client: Client, count: int = QUEUES, entries: int = ENTRIES) -> tuple[tuple[int, int, int, int], int]:
    """What the answer describes, and its descriptor."""
    client.send(Request.GET_INFLIGHT_FD, payload.inflight(0, 0, count, entries))
    head, fds, _, _ = socket.recv_fds(client.socket, HEADER.size, 1)
    client.opened += fds
    described = client.socket.recv(HEADER.unpack(head)[2], socket.MSG_WAITALL)
    return payload.parse_inflight(described), fds[0]


def region(client: Client, size: int) -> int:
    fd = os.memfd_create("region")
    client.opened.append(fd)
    os.ftruncate(fd, size)
    return fd


def test_console_returns_chains_in_order_and_offers_no_notes(daemon: Daemon) -> None:
    client = Client.connect(daemon.socket)
    answer = client.ask(Request.GET_PROTOCOL_FEATURES)
    client.close()
    assert answer is not None
    assert not int.from_bytes(answer, "little") & ProtocolFeature.INFLIGHT_SHMFD


@pytest.mark.parametrize(("packed", "part"), [(0, SPLIT_PART), (PACKED, 32 + 32 * 64 + 32)], ids=["split", "packed"])
def test_region_has_a_part_for_each_queue_and_can_not_be_shortened(client: Client, packed: int, part: int) -> None:
    client.must(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES | packed))
    described, fd = get_region(client)
    assert described == (QUEUES * part, 0, QUEUES, ENTRIES)
    assert os.fstat(fd).st_size == QUEUES * part
    assert os.pread(fd, QUEUES * part, 0) == bytes(QUEUES * part)
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK


def test_ring_notes_in_its_part_and_nowhere_else(client: Client) -> None:
    client.share_memory()
    _, fd = get_region(client)
    client.must(Request.SET_INFLIGHT_FD, payload.inflight(QUEUES * SPLIT_PART, 0, QUEUES, ENTRIES), (fd,))
    ring, kick, _ = client.ring(1)
    for count in range(1, 4):
        flush(client, ring, kick, count)
    assert comes_true(lambda: os.pread(fd, 2, SPLIT_PART + 14) == b"\x03\0")
    assert client.ask(Request.GET_VRING_BASE, struct.pack("<II", 1, 0)) == struct.pack("<II", 1, 3)
    assert os.pread(fd, SPLIT_PART, 0) == bytes(SPLIT_PART)
    version, entries, _, used = struct.unpack("<8x4H", os.pread(fd, 16, SPLIT_PART))
    assert (version, entries, used) == (1, ENTRIES, 3)
    assert set(os.pread(fd, SPLIT_PART, SPLIT_PART)[16::16]) == {0}


def test_ring_behind_the_region_s_queues_takes_no_notes(client: Client) -> None:
    client.share_memory()
    _, fd = get_region(client, 1)
    client.must(Request.SET_INFLIGHT_FD, payload.inflight(SPLIT_PART, 0, 1, ENTRIES), (fd,))
    ring, kick, _ = client.ring(1)
    flush(client, ring, kick, 1)
    assert os.pread(fd, SPLIT_PART, 0) == bytes(SPLIT_PART)


# Hostile ones


def refused(client: Client) -> bool:
    """Whether the connection ends."""
    return client.answer() is None


@pytest.mark.parametrize("code", [Request.GET_INFLIGHT_FD, Request.SET_INFLIGHT_FD])
def test_notes_that_were_not_agreed_on_are_refused(client: Client, code: Request) -> None:
    client.send(Request.SET_PROTOCOL_FEATURES, struct.pack("<Q", REPLY_ACK))
    client.send(code, payload.inflight(SPLIT_PART, 0, 1, ENTRIES), (client.fd,))
    assert refused(client)


@pytest.mark.parametrize(
    ("count", "entries"), [(0, 64), (QUEUES + 1, 64), (0xFFFF, 0xFFFF), (1, 0), (1, 0x8001), (1, 0xFFFF)]
)
def test_region_for_what_no_device_has_is_not_made(client: Client, count: int, entries: int) -> None:
    client.send(Request.GET_INFLIGHT_FD, payload.inflight(0, 0, count, entries))
    assert refused(client)


@pytest.mark.parametrize("data", [b"", bytes(19), bytes(21), bytes(64)], ids=len)
@pytest.mark.parametrize("code", [Request.GET_INFLIGHT_FD, Request.SET_INFLIGHT_FD])
def test_description_of_another_size_is_refused(client: Client, code: Request, data: bytes) -> None:
    client.send(code, data, (client.fd,))
    assert refused(client)


def test_region_asked_for_in_a_loop_leaves_nothing(disk: Daemon, client: Client) -> None:
    """CVE-2020-10726."""
    get_region(client)
    before = quiet_descriptors(disk)
    for _ in range(50):
        os.close(get_region(client)[1])
        client.opened.pop()
    wait_descriptors(disk, before)  # the last is closed after it is sent


@pytest.mark.parametrize(
    "description",
    [
        (0, 0, QUEUES, ENTRIES),
        (MEMORY + 1, 0, QUEUES, ENTRIES),
        (MEMORY, 64, QUEUES, ENTRIES),
        (TOP, TOP, QUEUES, ENTRIES),
        (4096, 1 << 63, QUEUES, ENTRIES),
        (1 << 63, 0, QUEUES, ENTRIES),
        (4096, 8, QUEUES, ENTRIES),
        (MEMORY, 0, 0, ENTRIES),
        (MEMORY, 0, QUEUES + 1, ENTRIES),
        (MEMORY, 0, 1, 0),
        (MEMORY, 0, 1, 0xFFFF),
    ],
    ids=str,
)
def test_region_that_can_not_be_is_not_mapped(disk: Daemon, client: Client, description: tuple[int, ...]) -> None:
    """CVE-2021-3839: number of queues and their size were believed."""
    client.send(Request.SET_INFLIGHT_FD, payload.inflight(*description), (client.fd,))  # type: ignore[call-arg]
    assert refused(client)
    assert mapped(disk) == 0


@pytest.mark.parametrize("count", [0, 2])
def test_region_with_another_number_of_descriptors_is_refused(client: Client, count: int) -> None:
    fds = (client.fd, client.fd)[:count]
    client.send(Request.SET_INFLIGHT_FD, payload.inflight(4096, 0, QUEUES, ENTRIES), fds)
    assert refused(client)


def test_region_said_again_replaces_the_last(disk: Daemon, client: Client) -> None:
    client.share_memory()
    client.ring(0)
    for _ in range(3):
        fd = region(client, QUEUES * SPLIT_PART)
        client.must(Request.SET_INFLIGHT_FD, payload.inflight(QUEUES * SPLIT_PART, 0, QUEUES, ENTRIES), (fd,))
    assert mapped(disk) == 2  # and the memory


@pytest.mark.parametrize("size", [SPLIT_PART, QUEUES * SPLIT_PART - 64], ids=["one part", "less"])
def test_ring_whose_part_is_past_the_region_s_end_does_not_run(client: Client, size: int) -> None:
    client.share_memory()
    fd = region(client, MEMORY)
    client.must(Request.SET_INFLIGHT_FD, payload.inflight(size, 0, QUEUES, ENTRIES), (fd,))
    with pytest.raises((AssertionError, BrokenPipeError, ConnectionResetError)):
        client.ring(1)


@pytest.mark.parametrize("entries", [1, ENTRIES - 1])
def test_ring_longer_than_its_part_does_not_run(client: Client, entries: int) -> None:
    client.share_memory()
    fd = region(client, MEMORY)
    client.must(Request.SET_INFLIGHT_FD, payload.inflight(MEMORY, 0, QUEUES, entries), (fd,))
    assert not runs(client)


def runs(client: Client) -> bool:
    """Whether ring 0 does, whose driver is heard of where it does not."""
    with_ring = client.ring(0, enable=False)
    client.send(Request.SET_VRING_ENABLE, struct.pack("<II", 0, 1), flags=1 | 8)
    answer = client.answer()
    assert answer in (struct.pack("<Q", 0), struct.pack("<Q", 1))
    if answer == bytes(8):
        flush(client, *with_ring[:2], 1)
    return answer == bytes(8)


SPLIT_LIES = {
    "version": struct.pack("<8x4H", 2, ENTRIES, 0, 0),
    "entries": struct.pack("<8x4H", 1, ENTRIES + 1, 0, 0),
    "batch longer than the ring": struct.pack("<8x4H", 1, ENTRIES, 0, 0x8000),
    "batch of no descriptor": struct.pack("<8x4H", 1, ENTRIES, ENTRIES, 0xFFFF),
}


@pytest.mark.parametrize("lie", SPLIT_LIES.values(), ids=SPLIT_LIES)
def test_notes_that_no_process_has_left_are_the_driver_s_fault(client: Client, lie: bytes) -> None:
    client.share_memory()
    fd = region(client, QUEUES * SPLIT_PART)
    os.pwrite(fd, lie, 0)
    client.must(Request.SET_INFLIGHT_FD, payload.inflight(QUEUES * SPLIT_PART, 0, QUEUES, ENTRIES), (fd,))
    assert not runs(client)


def test_chains_in_flight_that_there_are_not_break_the_ring(client: Client) -> None:
    """All heads, whose descriptors are zeros: the ring is told that it is broken, and the client stays."""
    client.share_memory()
    fd = region(client, QUEUES * SPLIT_PART)
    os.pwrite(fd, struct.pack("<8x4H", 1, ENTRIES, 0, 0) + (b"\1" + bytes(15)) * ENTRIES, 0)
    client.must(Request.SET_INFLIGHT_FD, payload.inflight(QUEUES * SPLIT_PART, 0, QUEUES, ENTRIES), (fd,))
    err = client.eventfd()
    client.must(Request.SET_VRING_ERR, struct.pack("<Q", 0), (err,))
    client.ring(0)
    os.set_blocking(err, True)
    assert os.eventfd_read(err) == 1
    assert client.queues() == QUEUES


@pytest.mark.parametrize("packed", [0, PACKED], ids=["split", "packed"])
def test_any_bytes_in_a_region_are_survived(disk: Daemon, packed: int) -> None:
    rng = random.Random(5)
    for turn in range(40):
        client = Client.connect(disk.socket)
        client.negotiate(NOTES)
        client.must(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES | packed))
        client.share_memory()
        fd = region(client, 0x4000)
        noise = bytes(rng.choice((0, 0, 0, 1, 2, 63, 64, 255)) for _ in range(0x4000))
        head = struct.pack("<8x4H", 1, ENTRIES, *(rng.randrange(66) for _ in range(2))) if turn % 4 else b""
        os.pwrite(fd, head + noise[len(head) :], 0)
        client.must(Request.SET_INFLIGHT_FD, payload.inflight(0x4000, 0, QUEUES, ENTRIES), (fd,))
        client.ring(0, enable=False)
        client.send(Request.SET_VRING_ENABLE, struct.pack("<II", 0, 1), flags=1 | 8)
        assert client.answer() in (struct.pack("<Q", 0), struct.pack("<Q", 1))
        assert client.queues() == QUEUES
        client.close()
    assert "Traceback" not in disk.log.read_text()


def test_client_that_shortens_its_region_under_a_running_ring_is_left(disk: Daemon, client: Client) -> None:
    client.share_memory()
    fd = region(client, QUEUES * SPLIT_PART)
    client.must(Request.SET_INFLIGHT_FD, payload.inflight(QUEUES * SPLIT_PART, 0, QUEUES, ENTRIES), (fd,))
    ring, kick, _ = client.ring(0)
    os.ftruncate(fd, 0)
    client.write(REQUEST, FLUSH)
    ring.add_chain([(REQUEST, 16)], [(STATUS, 1)])
    ring.publish()
    os.eventfd_write(kick, 1)
    assert refused(client)
    assert comes_true(lambda: mapped(disk) == 0)
