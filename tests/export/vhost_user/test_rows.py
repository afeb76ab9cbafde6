"""Faults that other vhost-user back-ends had with hostile front-ends (rows 84 to 95), tried at ours.

Every test ends the same way: the program has as many descriptors as before, maps nothing of the client's, has logged no
traceback, and serves the next client.
"""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, Request
from tests.backends.user.user_rig import Daemon
from tests.export.vhost_user.export_rig import (
    MEMORY,
    REPLY_ACK,
    SLOTS,
    STATUS,
    USER,
    VERSION_1,
    Client,
    descriptors,
    message,
    say,
    serves,
    wait_descriptors,
    wait_used,
)

LOG_SHMFD = 1 << 1
GET_INFLIGHT_FD, SET_INFLIGHT_FD = 31, 32
NO_FD = 0x100
TOP = (1 << 64) - 1
ADDRESSES = struct.pack("<QQQQ", USER, USER + 0x1000, USER + 0x2000, 0)


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    """One whose misdeeds leave no trace."""
    assert serves(daemon)
    before, said = descriptors(daemon), len(daemon.log.read_text())
    client = Client.connect(daemon.socket)
    try:
        yield client
    finally:
        client.close()
    assert serves(daemon)
    wait_descriptors(daemon, before)
    assert mapped(daemon) == 0
    assert "Traceback" not in daemon.log.read_text()[said:]


def mapped(daemon: Daemon) -> int:
    """Mappings of clients' memory in the program."""
    assert daemon.process is not None
    return Path(f"/proc/{daemon.process.pid}/maps").read_text().count("memfd:ram")


def resident_kib(daemon: Daemon) -> int:
    assert daemon.process is not None
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * 4


def refused(client: Client) -> bool:
    """Whether the connection ends."""
    return client.answer() is None


def send_nulls(client: Client, data: bytes, count: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    socket.send_fds(client.socket, [data], [null] * count)
    os.close(null)


# 84: descriptors that belong to nothing, and the same said again and again (CVE-2019-14818)

TAKES_NONE = {
    Request.SET_OWNER: b"",
    Request.RESET_OWNER: b"",
    Request.SET_FEATURES: struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES),
    Request.SET_PROTOCOL_FEATURES: struct.pack("<Q", REPLY_ACK | STATUS),
    Request.SET_VRING_NUM: struct.pack("<II", 1, 64),
    Request.SET_VRING_BASE: struct.pack("<II", 1, 0),
    Request.SET_VRING_ADDR: struct.pack("<II", 1, 0) + ADDRESSES,
    Request.SET_VRING_ENABLE: struct.pack("<II", 1, 0),
    Request.SET_VRING_CALL: struct.pack("<Q", 1 | NO_FD),
    Request.SET_VRING_ERR: struct.pack("<Q", 1 | NO_FD),
    Request.SET_STATUS: bytes(8),
    Request.SET_CONFIG: struct.pack("<III", 8, 4, 0) + bytes(4),
    Request.RESET_DEVICE: b"",
}


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("code", TAKES_NONE, ids=lambda code: code.name)
def test_row_84_descriptors_that_no_request_takes_are_closed_at_once(
    daemon: Daemon, client: Client, code: Request, count: int
) -> None:
    assert client.queues()
    before = descriptors(daemon)
    for _ in range(40):
        send_nulls(client, message(code, TAKES_NONE[code]), count)
    assert client.queues()
    assert descriptors(daemon) == before


def test_row_84_ring_size_said_ten_thousand_times_costs_no_memory(daemon: Daemon, client: Client) -> None:
    client.negotiate()
    saying = message(Request.SET_VRING_NUM, struct.pack("<II", 1, 64)) * 100
    client.socket.sendall(saying)  # what the first ones allocate stays
    assert client.queues()
    before = resident_kib(daemon)
    for _ in range(100):
        client.socket.sendall(saying)
    assert client.queues()
    assert resident_kib(daemon) - before < 512


@pytest.mark.parametrize("code", [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR])
def test_row_84_eventfd_said_again_replaces_the_last(daemon: Daemon, client: Client, code: Request) -> None:
    client.negotiate()
    payload, fd = struct.pack("<Q", 1), client.eventfd()
    client.must(code, payload, (fd,))
    before = descriptors(daemon)
    for _ in range(200):
        client.send(code, payload, (fd,))
    assert client.queues()
    assert descriptors(daemon) == before


# 85: descriptors of messages that are cut short or not good for anything


@pytest.mark.parametrize("data", [message(Request.SET_OWNER), message(Request.SET_OWNER)[:5]], ids=["whole", "half"])
@pytest.mark.parametrize("count", [9, 16, 200])
def test_row_85_more_descriptors_than_a_message_can_have(client: Client, data: bytes, count: int) -> None:
    send_nulls(client, data, count)
    assert refused(client)


@pytest.mark.parametrize("size", [4097, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_row_85_size_that_nobody_has_with_descriptors(client: Client, size: int) -> None:
    send_nulls(client, message(Request.SET_MEM_TABLE, size=size), 8)
    assert refused(client)


@pytest.mark.parametrize("cut", [1, 11, 12, 20, 43])
def test_row_85_message_that_never_ends_with_descriptors(client: Client, cut: int) -> None:
    table = message(Request.SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, MEMORY, USER, 0))
    send_nulls(client, table[:cut], 8)
    client.socket.shutdown(socket.SHUT_WR)
    assert refused(client)


@pytest.mark.parametrize("payload", [b"", bytes(7), bytes(9), bytes(40)])
@pytest.mark.parametrize("code", [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.ADD_MEM_REG])
def test_row_85_payload_of_another_size_with_the_right_descriptor(
    client: Client, code: Request, payload: bytes
) -> None:
    client.send(code, payload, (client.eventfd() if code is not Request.ADD_MEM_REG else client.fd,))
    assert refused(client)


# 86: the dirty log, whose offset and size wrap (CVE-2020-10722); more of it is in test_log


@pytest.mark.parametrize(("size", "offset"), [(1 << 63, 1 << 63), (TOP, 4096), (4096, TOP), (MEMORY, 1), (0, 0)])
def test_row_86_log_whose_offset_and_size_wrap_is_not_mapped(
    daemon: Daemon, client: Client, size: int, offset: int
) -> None:
    client.negotiate(REPLY_ACK | LOG_SHMFD)
    client.send(Request.SET_LOG_BASE, struct.pack("<QQ", size, offset), (client.fd,))
    assert refused(client)
    assert mapped(daemon) == 0


# 87, 90, 91, 93: ring numbers

BY_NUMBER = {
    Request.SET_VRING_NUM: struct.pack("<I", 64),
    Request.SET_VRING_BASE: bytes(4),
    Request.GET_VRING_BASE: bytes(4),
    Request.SET_VRING_ENABLE: bytes(4),
    Request.SET_VRING_ADDR: bytes(4) + ADDRESSES,
}
BY_EVENTFD = (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)


@pytest.mark.parametrize("index", [0x1_0000, 0x1_0001, 0x100, 0x101, 0x8000_0001, 0xFFFF_FF01], ids=hex)
@pytest.mark.parametrize("code", BY_NUMBER, ids=lambda code: code.name)
def test_row_87_number_that_is_a_ring_in_its_low_bits_only(client: Client, code: Request, index: int) -> None:
    """CVE-2020-10723: 32 bits were cut to 16 after the check."""
    client.negotiate()
    client.send(code, struct.pack("<I", index) + BY_NUMBER[code])
    assert refused(client)


@pytest.mark.parametrize("high", [1 << 9, 1 << 16, 1 << 32, 1 << 63], ids=hex)
@pytest.mark.parametrize("no_fd", [0, NO_FD], ids=["descriptor", "none"])
@pytest.mark.parametrize("code", BY_EVENTFD, ids=lambda code: code.name)
def test_row_87_eventfd_for_a_number_with_bits_that_mean_nothing(
    client: Client, code: Request, no_fd: int, high: int
) -> None:
    client.negotiate()
    client.send(code, struct.pack("<Q", 1 | no_fd | high), () if no_fd else (client.eventfd(),))
    assert refused(client)


@pytest.mark.parametrize("past", ["one", "255", "2^31", "2^32-1"])
@pytest.mark.parametrize("code", [code for code in BY_NUMBER if code is not Request.SET_VRING_BASE])
def test_row_90_ring_that_does_not_exist(client: Client, code: Request, past: str) -> None:
    """libvhost-user 758ef96a2dba."""
    client.negotiate()
    index = {"one": client.queues(), "255": 255, "2^31": 1 << 31, "2^32-1": (1 << 32) - 1}[past]
    client.send(code, struct.pack("<I", index) + BY_NUMBER[code])
    assert refused(client)


@pytest.mark.parametrize("code", BY_EVENTFD, ids=lambda code: code.name)
def test_row_90_eventfd_of_a_ring_that_does_not_exist(client: Client, code: Request) -> None:
    client.negotiate()
    client.send(code, struct.pack("<Q", client.queues()), (client.eventfd(),))
    assert refused(client)


@pytest.mark.parametrize("base", [0, 1, 0xFFFF])
@pytest.mark.parametrize("past", [0, 1, 200, (1 << 32) - 1])
def test_row_91_base_of_a_ring_that_does_not_exist(client: Client, past: int, base: int) -> None:
    """rust-vmm 38c442d: the index of SET_VRING_BASE alone was not checked."""
    client.negotiate()
    client.send(Request.SET_VRING_BASE, struct.pack("<II", min(client.queues() + past, (1 << 32) - 1), base))
    assert refused(client)


@pytest.mark.parametrize("base", [0x1_0000, 0x1_0001, 0xFFFF_FFFF])
def test_row_91_base_that_no_ring_can_have(client: Client, base: int) -> None:
    client.negotiate()
    client.send(Request.SET_VRING_BASE, struct.pack("<II", 1, base))
    assert refused(client)


@pytest.mark.parametrize("code", [0, 41, 42, 0x7FFF_FFFF, 0x8000_0001, 0xFFFF_FFFF, *range(43, 50)])
def test_row_92_request_that_does_not_exist(client: Client, code: int) -> None:
    """rust-vmm 0152e88: a header with an impossible request was taken for one of the enumeration."""
    assert code not in Request._value2member_map_
    client.send(code, bytes(8))
    assert refused(client)


@pytest.mark.parametrize("code", [Request.SET_VRING_CALL, Request.SET_VRING_ERR], ids=lambda code: code.name)
def test_row_93_bit_for_no_descriptor_is_no_part_of_the_number(daemon: Daemon, client: Client, code: Request) -> None:
    """SPDK 71c1bbeeb5: 0x101 is ring 1 without a descriptor, and takes away the one it had."""
    client.negotiate()
    assert client.queues()
    before = descriptors(daemon)
    client.must(code, struct.pack("<Q", 1), (client.eventfd(),))
    assert descriptors(daemon) == before + 1
    client.must(code, struct.pack("<Q", 1 | NO_FD))
    assert descriptors(daemon) == before


def test_row_93_kick_without_a_descriptor_is_refused(client: Client) -> None:
    client.negotiate()
    client.send(Request.SET_VRING_KICK, struct.pack("<Q", 1 | NO_FD))
    assert refused(client)


# 88, 89: notes of what is in flight. There are none: a console repeats nothing.


def test_row_88_inflight_memory_asked_for_in_a_loop(daemon: Daemon) -> None:
    """CVE-2020-10726: each answer made a file that nobody closed."""
    assert serves(daemon)
    before = descriptors(daemon)
    for _ in range(30):
        greedy = Client.connect(daemon.socket)
        request = message(GET_INFLIGHT_FD, struct.pack("<QQHHI", 0, 0, 1, 64, 0))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            greedy.socket.sendall(3 * request)
        assert refused(greedy)
        greedy.close()
    assert serves(daemon)
    wait_descriptors(daemon, before)


@pytest.mark.parametrize(
    "description",
    [(4096, 0, 1, 64), (TOP, TOP, 0xFFFF, 0xFFFF), (0, 0, 0, 0), (MEMORY, 1 << 63, 34, 0x8000)],
    ids=["plausible", "all ones", "zeroes", "past its end"],
)
def test_row_89_inflight_memory_of_a_client_is_not_mapped(
    daemon: Daemon, client: Client, description: tuple[int, ...]
) -> None:
    """CVE-2021-3839: number of queues and their size were believed."""
    client.send(SET_INFLIGHT_FD, struct.pack("<QQHHI", *description, 0), (client.fd,))
    assert refused(client)
    assert mapped(daemon) == 0


# 94, 95: memory


@pytest.mark.parametrize("offset", [1, 8, 0x120, 0xFFF, 0x1001])
def test_row_94_offset_that_is_no_page_is_applied(client: Client, offset: int) -> None:
    """rust-vmm 2055d11. The ring is put *offset* further into the file, which is where guest address 0 is."""
    client.negotiate()
    client.share_memory(offset)
    ram, client.ram = client.ram, memoryview(client.ram)[offset:]  # type: ignore[assignment]
    try:
        ring, kick, _ = client.ring(1)
        say(client, ring, b"x")
        os.eventfd_write(kick, 1)
        wait_used(ring, 1)
    finally:
        client.ram.release()  # type: ignore[attr-defined]
        client.ram = ram


@pytest.mark.parametrize(("size", "offset"), [(MEMORY, 1), (1, MEMORY), (4096, TOP), (TOP, 1), (1 << 63, 1 << 63)])
def test_row_94_region_past_the_end_of_its_file_is_refused(client: Client, size: int, offset: int) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    client.send(Request.ADD_MEM_REG, struct.pack("<5Q", 0, 0, size, USER, offset), (client.fd,))
    assert refused(client)


def test_row_95_memory_told_again_while_a_ring_runs(client: Client) -> None:
    """DPDK 2a2904fa9c: the table was freed under a running queue."""
    client.negotiate()
    client.share_memory()
    ring, kick, _ = client.ring(1)
    for count in range(1, 151):
        say(client, ring, b"y" * 400)
        os.eventfd_write(kick, 1)
        client.share_memory()
        wait_used(ring, count)
        ring.used()


def test_row_95_memory_told_again_while_another_thread_kicks(client: Client) -> None:
    client.negotiate()
    client.share_memory()
    ring, kick, _ = client.ring(1)
    done = threading.Event()

    def push() -> None:
        count = 0
        while not done.is_set():
            say(client, ring, b"z" * 200)
            os.eventfd_write(kick, 1)
            count += 1
            wait_used(ring, count & 0xFFFF)
            ring.used()

    pusher = threading.Thread(target=push)
    pusher.start()
    try:
        for _ in range(100):
            client.share_memory()
    finally:
        done.set()
        pusher.join()


def test_row_95_region_of_a_running_ring_that_is_taken_away_stops_it(daemon: Daemon, client: Client) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    region = struct.pack("<5Q", 0, 0, MEMORY, USER, 0)
    client.must(Request.ADD_MEM_REG, region, (client.fd,))
    ring, kick, _ = client.ring(1)
    say(client, ring, b"x")
    os.eventfd_write(kick, 1)
    wait_used(ring, 1)
    client.send(Request.REM_MEM_REG, region)
    assert refused(client)
    assert mapped(daemon) == 0
    say(client, ring, b"y")
    os.eventfd_write(kick, 1)
    assert serves(daemon)
    assert ring.used_idx() == 1
