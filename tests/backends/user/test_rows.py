"""Faults that other vhost-user front-ends had with hostile back-ends (rows 84 to 95), tried at ours.

Every test ends the same way: no descriptor and no mapping is left, and a back-end that behaves is served next.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends.user import link as user_link
from acrn_dm.backends.wire.message import ProtocolFeature, Request
from acrn_dm.backends.wire.payload import MAX_QUEUES
from acrn_dm.base.errors import HostError
from acrn_dm.devices.virtio_net.request import CTRL_VQ, MQ
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import NEEDS_RESET
from tests.backends.user.machines import disk, sim
from tests.backends.user.peers.peer import ALL, BLK_FEATURES, HEADER, Answer, Connection, Peer, Received
from tests.backends.user.user_rig import eventually, open_descriptors

LIMIT_S = 0.5
LOG_ALL, LOG_SHMFD = 1 << 26, 1 << 1
TOP = (1 << 64) - 1
INFLIGHT = struct.Struct("<QQHHI")
NO_FD = 0x100


def mappings() -> int:
    """Of files in memory: guest RAM, shadow rings, and what a back-end could make us map."""
    return Path("/proc/self/maps").read_text().count("memfd:")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    behave(tmp_path / "first")  # what is opened once for the life of the process
    before = open_descriptors(), mappings()
    yield
    behave(tmp_path / "next")
    assert (open_descriptors(), mappings()) == before


def behave(path: Path) -> None:
    """A back-end that does, and a driver that is served."""
    with Peer(path) as peer, sim() as machine:
        disk(machine, peer.path).start()
        assert machine.failures == []
        assert Request.SET_VRING_ENABLE in peer.codes()


def answer(
    build: Callable[[Received], bytes], descriptors: int = 0, *, flags: int = 5, size: int | None = None
) -> Answer:
    """An answer with a header of its own and descriptors of /dev/null."""

    def send(connection: Connection, request: Received) -> None:
        payload = build(request)
        null = os.open("/dev/null", os.O_RDONLY)
        data = HEADER.pack(request.code, flags, len(payload) if size is None else size) + payload
        socket.send_fds(connection.socket, [data], [null] * descriptors)
        os.close(null)

    return send


def well(peer_answer: Received) -> bytes:
    """What a good back-end says to requests that are answered by a number."""
    return struct.pack("<Q", BLK_FEATURES if peer_answer.code == Request.GET_FEATURES else 0)


def start(machine: SimMachine, peer: Peer) -> "VirtioDriver | None":
    """A driver on *peer*; None where the back-end is refused before any driver comes."""
    try:
        driver = disk(machine, peer.path)
    except HostError:
        return None
    driver.start()
    machine.settle()
    return driver


# 30, 34: rings that are used in order


def test_row_30_row_34_order_that_only_the_backend_knows_is_not_offered(tmp_path: Path) -> None:
    extra = 1 << 35
    with Peer(tmp_path / "s", features=BLK_FEATURES | extra) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert not driver.registers.offered() & extra
        assert not int.from_bytes(peer.last(Request.SET_FEATURES).payload, "little") & extra


# 84, 85: descriptors


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("code", [Request.GET_FEATURES, Request.SET_OWNER, Request.SET_VRING_NUM])
def test_row_84_answers_that_bring_descriptors_along(tmp_path: Path, code: Request, count: int) -> None:
    with Peer(tmp_path / "s", {code: answer(well, count)}) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is None or driver.status & NEEDS_RESET


def test_row_84_own_requests_of_the_backend_that_bring_descriptors_along(tmp_path: Path) -> None:
    with Peer(tmp_path / "s") as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert peer.back is not None
        for _ in range(20):
            null = os.open("/dev/null", os.O_RDONLY)
            with contextlib.suppress(OSError):
                peer.back.send(2, b"", flags=1, fds=(null,) * 8)
            os.close(null)
        eventually(machine, lambda: bool(machine.failures))
        assert driver.status & NEEDS_RESET


@pytest.mark.parametrize("count", [9, 16, 200])
@pytest.mark.parametrize("code", [Request.GET_FEATURES, Request.SET_VRING_KICK, Request.GET_INFLIGHT_FD])
def test_row_85_answer_with_more_descriptors_than_there_can_be(tmp_path: Path, code: Request, count: int) -> None:
    with Peer(tmp_path / "s", {code: answer(well, count)}) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is None or driver.status & NEEDS_RESET


@pytest.mark.parametrize("size", [4097, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_row_85_answer_of_a_size_that_nobody_has_with_descriptors(tmp_path: Path, size: int) -> None:
    with Peer(tmp_path / "s", {Request.SET_FEATURES: answer(well, 8, size=size)}) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert driver.status & NEEDS_RESET


def test_row_85_answer_that_never_ends_with_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {Request.SET_FEATURES: answer(lambda r: bytes(3), 8, size=8)}
    with Peer(tmp_path / "s", answers) as peer, sim() as machine:
        driver = disk(machine, peer.path)
        monkeypatch.setattr(user_link, "TIME_LIMIT_S", LIMIT_S)
        driver.start()
        monkeypatch.undo()
        machine.settle()
        assert driver.status & NEEDS_RESET


# 86: the dirty log


def test_row_86_logging_that_a_backend_offers_is_not_taken(tmp_path: Path) -> None:
    protocol = ProtocolFeature(ALL | LOG_SHMFD)
    with Peer(tmp_path / "s", features=BLK_FEATURES | LOG_ALL, protocol=protocol) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert not driver.registers.offered() & LOG_ALL
        assert not int.from_bytes(peer.last(Request.SET_FEATURES).payload, "little") & LOG_ALL
        assert not int.from_bytes(peer.last(Request.SET_PROTOCOL_FEATURES).payload, "little") & LOG_SHMFD
        assert not {Request.SET_LOG_BASE, Request.SET_LOG_FD} & set(peer.codes())


# 87, 90, 91, 93: ring numbers


@pytest.mark.parametrize(
    ("index", "base"),
    [(0x1_0000, 0), (0x100, 0), (1, 0), (0xFFFF_FFFF, 0), (0, 0x1_0000), (0, 0xFFFF_FFFF)],
    ids=str,
)
def test_row_87_row_91_position_of_another_ring_or_of_none_is_not_believed(
    tmp_path: Path, index: int, base: int
) -> None:
    """The driver's reset returns all the same, and the next start begins anew."""
    wrong = answer(lambda r: struct.pack("<II", index, base))
    with Peer(tmp_path / "s", {Request.GET_VRING_BASE: wrong}) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        driver.reset()
        del peer.answers[Request.GET_VRING_BASE]
        driver.start()
        machine.settle()
        assert not driver.status & NEEDS_RESET
        assert peer.last(Request.SET_VRING_BASE).payload == bytes(8)
        assert peer.connections == 2


@pytest.mark.parametrize("said", [0, 1, 0xFFFF_FFFF, TOP])
def test_row_90_backend_that_says_it_has_any_number_of_queues(tmp_path: Path, said: int) -> None:
    answers = {Request.GET_QUEUE_NUM: answer(lambda r: struct.pack("<Q", said))}
    with Peer(tmp_path / "s", answers) as peer, sim() as machine:
        driver = start(machine, peer)
        assert (driver is None) == (said == 0)
        told = [r for r in peer.seen if r.code == Request.SET_VRING_NUM]
        assert all(struct.unpack("<II", r.payload)[0] == 0 for r in told)


def test_row_93_number_and_descriptor_of_every_ring_go_together(tmp_path: Path) -> None:
    """Bit 8 would say that there is none; no ring has a number that needs it."""
    features = BLK_FEATURES | MQ | CTRL_VQ
    with Peer(tmp_path / "s", features=features) as peer, sim() as machine:
        machine.add("virtio-net", f"vhost-user={peer.path},mq=8", slot=3)
        machine.driver(3).start()
        for code in (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR):
            told = [r for r in peer.seen if r.code == code]
            assert [struct.unpack("<Q", r.payload)[0] for r in told] == list(range(16))
            assert all(len(r.fds) == 1 for r in told)
    assert MAX_QUEUES == NO_FD


# 88, 89: notes of what is in flight


def test_row_88_memory_for_notes_is_asked_for_once_however_often_the_driver_starts(tmp_path: Path) -> None:
    with Peer(tmp_path / "s") as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        before = open_descriptors()
        for _ in range(20):
            driver.start()
        machine.settle()
        assert open_descriptors() - len(peer._fds) <= before, "a start costs a descriptor"
        assert machine.failures == []


def test_row_88_backend_that_dies_over_its_notes_again_and_again_costs_no_descriptor(tmp_path: Path) -> None:
    def die(connection: Connection, request: Received) -> None:
        raise ConnectionError

    with Peer(tmp_path / "s", {Request.SET_INFLIGHT_FD: die}) as peer, sim() as machine:
        assert start(machine, peer) is not None
        ours = open_descriptors() - len(peer._fds)
        eventually(machine, lambda: peer.connections > 6)
        assert peer.codes().count(Request.GET_INFLIGHT_FD) == 1
        # Between two moments of the peer's own thread the count may be higher; were a descriptor lost at each
        # connection's end, it would be for good.
        eventually(machine, lambda: open_descriptors() - len(peer._fds) <= ours + 3)


NOTES = {
    "no bytes": (0, 0, 1, 256),
    "all ones": (TOP, TOP, 0xFFFF, 0xFFFF),
    "wraps": (1 << 63, 1 << 63, 1, 256),
    "a terabyte": (1 << 40, 0, 1, 256),
    "far into it": (4096, 1 << 62, 1, 256),
}


@pytest.mark.parametrize("what", NOTES)
def test_row_89_memory_for_notes_that_can_not_be_is_refused(tmp_path: Path, what: str) -> None:
    answers = {Request.GET_INFLIGHT_FD: answer(lambda r: INFLIGHT.pack(*NOTES[what], 0), 1)}
    with Peer(tmp_path / "s", answers) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert driver.status & NEEDS_RESET


@pytest.mark.parametrize(("queues", "entries"), [(0, 0), (0xFFFF, 0xFFFF), (2, 3)])
def test_row_89_numbers_that_come_with_it_are_not_believed(tmp_path: Path, queues: int, entries: int) -> None:
    """CVE-2021-3839. We say how many queues there are; and nothing of it is ever mapped, however short the file is."""
    before = mappings()
    answers = {Request.GET_INFLIGHT_FD: answer(lambda r: INFLIGHT.pack(1 << 20, 0, queues, entries, 0), 1)}
    with Peer(tmp_path / "s", answers) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert not driver.status & NEEDS_RESET
        _, _, said, size, _ = INFLIGHT.unpack(peer.last(Request.SET_INFLIGHT_FD).payload)
        asked = INFLIGHT.unpack(peer.last(Request.GET_INFLIGHT_FD).payload)
        assert (said, size) == (asked[2], asked[3]) == (1, 256)
        assert mappings() == before + len(machine.memory.regions)


@pytest.mark.parametrize("count", [0, 2, 8])
def test_row_89_memory_for_notes_without_one_descriptor_is_refused(tmp_path: Path, count: int) -> None:
    answers = {Request.GET_INFLIGHT_FD: answer(lambda r: INFLIGHT.pack(8192, 0, 1, 256, 0), count)}
    with Peer(tmp_path / "s", answers) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert driver.status & NEEDS_RESET


# 92: impossible requests


@pytest.mark.parametrize("code", [0, 9, 41, 0x7FFF_FFFF, 0x8000_0001, 0xFFFF_FFFF])
def test_row_92_request_of_the_backend_that_does_not_exist(tmp_path: Path, code: int) -> None:
    with Peer(tmp_path / "s") as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert peer.back is not None
        peer.back.send(code, bytes(8), flags=1)
        eventually(machine, lambda: bool(machine.failures))
        assert driver.status & NEEDS_RESET


@pytest.mark.parametrize("code", [0, 41, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_row_92_answer_to_a_request_that_does_not_exist(tmp_path: Path, code: int) -> None:
    def other(connection: Connection, request: Received) -> None:
        connection.send(code, bytes(8))

    with Peer(tmp_path / "s", {Request.SET_FEATURES: other}) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert driver.status & NEEDS_RESET


# 94, 95: memory


@pytest.mark.parametrize("slots", [True, False], ids=["slot by slot", "as a table"])
def test_row_94_every_region_starts_a_page_of_its_file(tmp_path: Path, slots: bool) -> None:
    """Back-ends that forget to apply an offset, or need one that is a page, are right with ours."""
    protocol = ALL if slots else ALL & ~ProtocolFeature.CONFIGURE_MEM_SLOTS
    with Peer(tmp_path / "s", protocol=protocol) as peer, sim() as machine:
        assert start(machine, peer) is not None
        code = Request.ADD_MEM_REG if slots else Request.SET_MEM_TABLE
        told = [r for r in peer.seen if r.code == code]
        regions = [region for r in told for region in struct.iter_unpack("<QQQQ", r.payload[8:])]
        assert [(gpa, size, offset) for gpa, size, _, offset in regions] == [
            (region.gpa, region.size, 0) for region in machine.memory.regions
        ]
        assert [os.fstat(fd).st_size for r in told for fd in r.fds] == [r.size for r in machine.memory.regions]


@attrs.define(eq=False)
class Shortening:
    """A back-end that tries to take guest memory away while its rings run."""

    errors: int = 0

    def __call__(self, connection: Connection, request: Received) -> None:
        for fd in request.fds:
            try:
                os.ftruncate(fd, 0)
            except OSError:
                self.errors += 1
        connection.send(request.code, bytes(8))


def test_row_95_guest_memory_can_not_be_taken_away_while_rings_run(tmp_path: Path) -> None:
    """DPDK 2a2904fa9c, from the other side: the files are sealed, so the table stays true as long as it is in use."""
    hostile = Shortening()
    with Peer(tmp_path / "s", {Request.ADD_MEM_REG: hostile}) as peer, sim() as machine:
        driver = start(machine, peer)
        assert driver is not None
        assert hostile.errors == len(machine.memory.regions)
        assert machine.memory.read(0, 4) == bytes(4)
        driver.reset()
        assert not driver.status
