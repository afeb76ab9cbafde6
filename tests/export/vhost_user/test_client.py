"""Clients of our own making, good and bad, at the console back-end."""

import os
import socket
import struct
import time
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, Request
from acrn_dm.base.events.eventfd import signal
from acrn_dm.testing import DriverRing, RingLayout
from tests.backends.user.user_rig import EVENTFD_FULL, Daemon
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
from tests.patience import comes_true

# Good ones


def test_ring_runs_when_it_is_kicked_and_calls(client: Client) -> None:
    client.negotiate()
    client.share_memory()
    ring, kick, call = client.ring(1)
    say(client, ring, b"hello")
    os.eventfd_write(kick, 1)
    wait_used(ring, 1)
    os.set_blocking(call, True)
    assert os.eventfd_read(call) == 1


def test_kick_from_before_enabling_is_not_lost(client: Client) -> None:
    client.negotiate()
    client.share_memory()
    ring, _, _ = client.ring(1, enable=False)
    say(client, ring, b"early")
    client.must(Request.SET_VRING_ENABLE, struct.pack("<II", 1, 1))
    wait_used(ring, 1)


def test_set_features_while_running_does_not_disable_rings(client: Client) -> None:
    client.negotiate()
    client.share_memory()
    ring, kick, _ = client.ring(1)
    client.must(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES))
    say(client, ring, b"x")
    os.eventfd_write(kick, 1)
    wait_used(ring, 1)


def test_ring_is_served_where_the_status_is_not_the_driver_s(client: Client) -> None:
    """QEMU 7.2 says FEATURES_OK with the features, and nothing more for most of its devices."""
    client.negotiate(REPLY_ACK | STATUS)
    client.must(Request.SET_STATUS, struct.pack("<Q", 8))
    client.share_memory()
    ring, kick, _ = client.ring(1)
    say(client, ring, b"x")
    os.eventfd_write(kick, 1)
    wait_used(ring, 1)


def test_get_vring_base_stops_the_ring_and_keeps_its_index(client: Client) -> None:
    client.negotiate()
    client.share_memory()
    ring, kick, _ = client.ring(1, base=7)
    ring_used = 7
    say(client, ring, b"x")
    os.eventfd_write(kick, 1)
    wait_used(ring, ring_used + 1)
    assert client.ask(Request.GET_VRING_BASE, struct.pack("<II", 1, 0)) == struct.pack("<II", 1, 8)
    say(client, ring, b"y")
    os.eventfd_write(kick, 1)
    assert client.ask(Request.GET_QUEUE_NUM) == struct.pack("<Q", 34)
    assert ring.used_idx() == 8


def test_call_changed_while_running_is_used_and_nothing_stops(client: Client) -> None:
    client.negotiate()
    client.share_memory()
    ring, kick, _ = client.ring(1)
    other = client.eventfd()
    client.must(Request.SET_VRING_CALL, struct.pack("<Q", 1), (other,))
    say(client, ring, b"x")
    os.eventfd_write(kick, 1)
    wait_used(ring, 1)
    os.set_blocking(other, True)
    assert os.eventfd_read(other) == 1


def test_call_may_be_missing(client: Client) -> None:
    client.negotiate()
    client.share_memory()
    ring, kick, _ = client.ring(1)
    client.must(Request.SET_VRING_CALL, struct.pack("<Q", 1 | 0x100))
    say(client, ring, b"x")
    os.eventfd_write(kick, 1)
    wait_used(ring, 1)


def test_with_status_agreed_rings_wait_for_driver_ok(client: Client) -> None:
    client.negotiate(REPLY_ACK | STATUS)
    client.share_memory()
    ring, kick, _ = client.ring(1)
    say(client, ring, b"x")
    os.eventfd_write(kick, 1)
    assert client.ask(Request.GET_STATUS) == bytes(8)
    assert ring.used_idx() == 0
    client.must(Request.SET_STATUS, struct.pack("<Q", 15))
    wait_used(ring, 1)


def cpu_seconds(daemon: Daemon) -> float:
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_full_semaphore_as_kick_works_and_burns_no_cpu(daemon: Daemon, client: Client) -> None:
    """It is readable for 2^64 reads."""
    client.negotiate()
    client.share_memory()
    ring, _, _ = client.ring(1)
    kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
    client.opened.append(kick)
    os.eventfd_write(kick, EVENTFD_FULL)
    client.must(Request.SET_VRING_KICK, struct.pack("<Q", 1), (kick,))
    say(client, ring, b"x")
    signal(kick)  # as the kernel does for a guest
    wait_used(ring, 1)
    before = cpu_seconds(daemon)
    time.sleep(0.5)  # the time that is measured
    assert cpu_seconds(daemon) - before < 0.25


@attrs.define
class Shifted:
    """The client's memory, its address 0 being at *offset* in the file."""

    client: Client
    offset: int

    def read(self, gpa: int, length: int) -> bytes:
        return self.client.read(gpa + self.offset, length)

    def write(self, gpa: int, data: bytes) -> None:
        self.client.write(gpa + self.offset, data)


def test_mmap_offset_that_is_not_a_page_is_applied(client: Client) -> None:
    client.negotiate()
    memory = Shifted(client, 0x120)
    client.share_memory(memory.offset)
    layout = RingLayout.at(0x10000, 64)
    ring = DriverRing(memory, layout)
    kick = client.eventfd()
    addresses = struct.pack("<IIQQQQ", 1, 0, USER + layout.desc, USER + layout.used, USER + layout.avail, 0)
    client.must(Request.SET_VRING_NUM, struct.pack("<II", 1, 64))
    client.must(Request.SET_VRING_ADDR, addresses)
    client.must(Request.SET_VRING_KICK, struct.pack("<Q", 1), (kick,))
    memory.write(0x80000, b"x")
    ring.add_chain([(0x80000, 1)])
    ring.publish()
    client.must(Request.SET_VRING_ENABLE, struct.pack("<II", 1, 1))
    wait_used(ring, 1)


def test_repeated_region_is_accepted_and_a_removed_one_is_gone(client: Client) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    region = struct.pack("<5Q", 0, 0, MEMORY, USER, 0)
    client.must(Request.ADD_MEM_REG, region, (client.fd,))
    client.must(Request.ADD_MEM_REG, region, (client.fd,))
    client.must(Request.REM_MEM_REG, region)
    client.send(Request.REM_MEM_REG, region)
    assert client.answer() is None


def test_driver_that_breaks_its_ring_is_told_and_the_client_stays(client: Client) -> None:
    client.negotiate(REPLY_ACK | STATUS)
    client.share_memory()
    ring, kick, _ = client.ring(1)
    err = client.eventfd()
    client.must(Request.SET_VRING_ERR, struct.pack("<Q", 1), (err,))
    client.must(Request.SET_STATUS, struct.pack("<Q", 15))
    ring.write_desc(0, 1 << 50, 5)
    ring.set_avail_entry(0, 0)
    ring.set_avail_idx(1)
    os.eventfd_write(kick, 1)
    os.set_blocking(err, True)
    assert os.eventfd_read(err) == 1
    assert client.ask(Request.GET_STATUS) == struct.pack("<Q", 15 | 64)


def test_rings_outside_memory_are_refused_and_the_client_stays(client: Client) -> None:
    client.negotiate(REPLY_ACK)
    client.share_memory()
    client.must(Request.SET_VRING_ADDR, struct.pack("<IIQQQQ", 1, 0, USER + MEMORY - 16, USER, USER + 0x1000, 0))
    client.must(Request.SET_VRING_KICK, struct.pack("<Q", 1), (client.eventfd(),))
    client.send(Request.SET_VRING_ENABLE, struct.pack("<II", 1, 1), flags=9)
    assert client.answer() == struct.pack("<Q", 1)
    assert client.ask(Request.GET_QUEUE_NUM) == struct.pack("<Q", 34)


def test_no_answer_without_need_reply(client: Client) -> None:
    client.negotiate()
    client.send(Request.SET_OWNER)
    assert client.ask(Request.GET_QUEUE_NUM) == struct.pack("<Q", 34)


# Bad ones: the connection ends, nothing is left of it, the next client is served

NULL = "/dev/null"


U64 = bytes(8)
REGION = struct.pack("<QQQQ", 0, MEMORY, USER, 0)
BAD = {
    "request 0": (message(0), 0),
    "request 2^32-1": (message(0xFFFFFFFF), 0),
    "a reply": (message(Request.GET_FEATURES, U64, flags=5), 0),
    "version 2": (message(Request.GET_FEATURES, flags=2), 0),
    "4 GiB": (message(Request.SET_FEATURES, size=0xFFFFFFFF), 0),
    "features too short": (message(Request.SET_FEATURES, bytes(7)), 0),
    "features not offered": (message(Request.SET_FEATURES, b"\xff" * 8), 0),
    "ring 34": (message(Request.SET_VRING_NUM, struct.pack("<II", 34, 64)), 0),
    "ring 2^32-1": (message(Request.SET_VRING_BASE, struct.pack("<II", 0xFFFFFFFF, 0)), 0),
    "size 0": (message(Request.SET_VRING_NUM, struct.pack("<II", 0, 0)), 0),
    "size 3": (message(Request.SET_VRING_NUM, struct.pack("<II", 0, 3)), 0),
    "size 128": (message(Request.SET_VRING_NUM, struct.pack("<II", 0, 128)), 0),
    "base 2^16": (message(Request.SET_VRING_BASE, struct.pack("<II", 0, 0x10000)), 0),
    "enable 2": (message(Request.SET_VRING_ENABLE, struct.pack("<II", 0, 2)), 0),
    "no kick": (message(Request.SET_VRING_KICK, struct.pack("<Q", 0x100)), 0),
    "kick without descriptor": (message(Request.SET_VRING_KICK, U64), 0),
    "kick with two": (message(Request.SET_VRING_KICK, U64), 2),
    "kick that is a file": (message(Request.SET_VRING_KICK, U64), 1),
    "call that is a file": (message(Request.SET_VRING_CALL, U64), 1),
    "200 descriptors": (message(Request.SET_OWNER), 200),
    "table of 9": (message(Request.SET_MEM_TABLE, struct.pack("<II", 9, 0) + 9 * REGION), 0),
    "table that is short": (message(Request.SET_MEM_TABLE, struct.pack("<II", 2, 0) + REGION), 1),
    "table without descriptor": (message(Request.SET_MEM_TABLE, struct.pack("<II", 1, 0) + REGION), 0),
    "table of an empty file": (message(Request.SET_MEM_TABLE, struct.pack("<II", 1, 0) + REGION), 1),
    "region that wraps": (message(Request.ADD_MEM_REG, struct.pack("<5Q", 0, 1 << 63, 1 << 63, 2, 0)), 1),
    "region with offset 2^64-1": (message(Request.ADD_MEM_REG, struct.pack("<5Q", 0, 0, 4096, 0, (1 << 64) - 1)), 1),
    "region of 0": (message(Request.ADD_MEM_REG, struct.pack("<5Q", 0, 0, 0, 0, 0)), 1),
    "config header short": (message(Request.GET_CONFIG, bytes(11)), 0),
    "config size lies": (message(Request.SET_CONFIG, struct.pack("<III", 0, 200, 0) + bytes(4)), 0),
    "channel that is a file": (message(Request.SET_BACKEND_REQ_FD), 1),
    "half a header, then nothing": (message(Request.GET_FEATURES)[:5], 0),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_client_is_disconnected_and_leaves_nothing(daemon: Daemon, what: str) -> None:
    assert serves(daemon)
    before = descriptors(daemon)
    data, count = BAD[what]
    client = Client.connect(daemon.socket)
    null = os.open(NULL, os.O_RDWR)
    socket.send_fds(client.socket, [data], [null] * count)
    os.close(null)
    if "nothing" not in what:
        assert client.answer() is None
    client.close()
    assert serves(daemon)
    wait_descriptors(daemon, before)


def test_region_longer_than_its_file_is_refused(daemon: Daemon, client: Client) -> None:
    region = struct.pack("<5Q", 0, 0, MEMORY + 4096, USER, 0)
    client.send(Request.ADD_MEM_REG, region, (client.fd,))
    assert client.answer() is None
    assert comes_true(lambda: "longer than its file" in daemon.log.read_text())


OVERLAPS = {"all of it": (0, 4096), "its end": (MEMORY - 4096, 8192), "around it": (0, 2 * MEMORY)}


@pytest.mark.parametrize("request_", [Request.SET_MEM_TABLE, Request.ADD_MEM_REG])
@pytest.mark.parametrize("where", OVERLAPS)
def test_regions_that_overlap_are_refused_and_leave_nothing(daemon: Daemon, request_: Request, where: str) -> None:
    """Each is good by itself."""
    assert serves(daemon)
    before, said = descriptors(daemon), len(daemon.log.read_text())
    client = Client.connect(daemon.socket)
    os.ftruncate(client.fd, 2 * MEMORY)
    client.negotiate(REPLY_ACK | SLOTS)
    client.share_memory()
    client.ring(1)
    first, second = (0, MEMORY, USER, 0), (*OVERLAPS[where], 2 * USER, 0)
    if request_ is Request.ADD_MEM_REG:
        client.send(request_, struct.pack("<5Q", 0, *second), (client.fd,))
    else:
        client.send(request_, struct.pack("<II8Q", 2, 0, *first, *second), (client.fd, client.fd))
    assert client.answer() is None
    client.close()
    assert comes_true(lambda: "overlaps another" in daemon.log.read_text()[said:])
    assert "Traceback" not in daemon.log.read_text()[said:]
    assert serves(daemon)
    wait_descriptors(daemon, before)


def test_regions_that_touch_are_both_used(client: Client) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    half = MEMORY // 2
    for at in (half, 0):
        client.must(Request.ADD_MEM_REG, struct.pack("<5Q", 0, at, half, USER + at, at), (client.fd,))
    ring, kick, _ = client.ring(1)
    client.write(half - 2, b"both")
    ring.add_chain([(half - 2, 4)])
    ring.publish()
    os.eventfd_write(kick, 1)
    wait_used(ring, 1)


def test_client_that_goes_in_the_middle_leaves_nothing(daemon: Daemon) -> None:
    assert serves(daemon)
    before = descriptors(daemon)
    client = Client.connect(daemon.socket)
    client.negotiate()
    client.share_memory()
    client.ring(0)
    client.ring(1)
    client.close()
    assert serves(daemon)
    wait_descriptors(daemon, before)


def test_client_that_repeats_everything_leaves_no_descriptors(daemon: Daemon) -> None:
    assert serves(daemon)
    client = Client.connect(daemon.socket)
    client.negotiate()
    client.share_memory()
    client.ring(1)
    before = descriptors(daemon)
    for _ in range(30):
        client.share_memory()
        client.ring(1)
        ours, theirs = socket.socketpair()
        client.send(Request.SET_BACKEND_REQ_FD, fds=(theirs.fileno(),))
        theirs.close()
        client.opened.append(ours.detach())
    assert client.ask(Request.GET_QUEUE_NUM) is not None
    assert descriptors(daemon) <= before + 1  # its channel
    client.close()


def test_configuration_past_the_end_is_answered_empty(client: Client) -> None:
    assert client.ask(Request.GET_CONFIG, struct.pack("<III", 8, 8, 0) + bytes(8)) == b""
    assert client.ask(Request.GET_CONFIG, struct.pack("<III", 4, 4, 0) + bytes(4)) == struct.pack("<IIII", 4, 4, 0, 16)
