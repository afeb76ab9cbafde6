"""The vhost-user front-end against back-ends of our own making, good and bad."""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.backends.user import backend as user
from acrn_dm.backends.user import link as user_link
from acrn_dm.backends.wire.message import ProtocolFeature, Request
from acrn_dm.base.errors import HostError
from acrn_dm.base.events import eventfd
from acrn_dm.devices import virtio_blk, virtio_console, virtio_net
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import NEEDS_RESET
from tests.backends.user.user_peer import ALL, BLK_FEATURES, HEADER, Answer, Connection, Peer, Received
from tests.backends.user.user_rig import eventually, jammed, open_descriptors, returns

LIMIT_S = 0.3


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_link, "TIME_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(user, "TIME_LIMIT_S", LIMIT_S)


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    eventfd._choose()  # what is opened once for the process
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def disk(machine: SimMachine, path: Path) -> VirtioDriver:
    machine.add("virtio-blk", f"vhost-user={path}", slot=3)
    return machine.driver(3)


def sim() -> SimMachine:
    return SimMachine(plugins=[virtio_blk, virtio_net, user])


# What is said, in which order


def test_conversation_of_a_disk_in_order(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        assert [Request(code).name for code in peer.codes()] == [
            "GET_FEATURES",
            "GET_PROTOCOL_FEATURES",
            "SET_PROTOCOL_FEATURES",
            "SET_OWNER",
            "GET_QUEUE_NUM",
            "GET_MAX_MEM_SLOTS",
            "SET_BACKEND_REQ_FD",
            "GET_CONFIG",
        ]
        peer.seen.clear()
        driver.start()
        assert [Request(code).name for code in peer.codes()] == [
            "SET_FEATURES",
            "SET_STATUS",
            "GET_STATUS",
            "GET_INFLIGHT_FD",
            "SET_INFLIGHT_FD",
            "ADD_MEM_REG",
            "SET_VRING_NUM",
            "SET_VRING_BASE",
            "SET_VRING_ADDR",
            "SET_VRING_ERR",
            "SET_VRING_CALL",
            "SET_VRING_KICK",
            "SET_VRING_ENABLE",
            "SET_STATUS",
        ]
        peer.seen.clear()
        driver.reset()
        assert [Request(code).name for code in peer.codes()] == [
            "GET_VRING_BASE",
            "SET_VRING_ENABLE",
            "RESET_DEVICE",
            "SET_STATUS",
        ]


def test_memory_is_told_once_per_connection(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        driver.reset()
        driver.start()
        assert peer.codes().count(Request.ADD_MEM_REG) == 1


def test_memory_goes_as_a_table_where_there_are_no_slots(socket_path: Path) -> None:
    protocol = ALL & ~ProtocolFeature.CONFIGURE_MEM_SLOTS
    with Peer(socket_path, protocol=protocol) as peer, sim() as machine:
        disk(machine, socket_path).start()
        table = peer.last(Request.SET_MEM_TABLE)
        assert struct.unpack_from("<I", table.payload)[0] == len(table.fds) == 1


def test_addresses_told_are_none_of_this_process(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        disk(machine, socket_path).start()
        _, _, _, told, _ = struct.unpack("<5Q", peer.last(Request.ADD_MEM_REG).payload)
        assert told != machine.memory.regions[0].hva
        _, _, desc, _, _, _ = struct.unpack("<IIQQQQ", peer.last(Request.SET_VRING_ADDR).payload)
        assert told <= desc < told + machine.memory.regions[0].size


def test_backend_without_protocol_features_serves_a_network_card(socket_path: Path) -> None:
    with Peer(socket_path, features=1 << 32 | 1 << 15) as peer, sim() as machine:
        machine.add("virtio-net", f"vhost-user={socket_path}", slot=3)
        driver = machine.driver(3)
        driver.start()
        eventually(machine, lambda: peer.codes().count(Request.SET_VRING_KICK) == 2)
        assert Request.SET_VRING_ENABLE not in peer.codes()
        assert machine.failures == []


def test_network_card_offers_what_both_sides_have_and_its_own_address(socket_path: Path) -> None:
    mrg_rxbuf, mac, csum = 1 << 15, 1 << 5, 1 << 0
    with Peer(socket_path, features=1 << 32 | mrg_rxbuf), sim() as machine:
        machine.add("virtio-net", f"vhost-user={socket_path},mac=00:16:3e:00:00:01", slot=3)
        driver = machine.driver(3)
        offered = driver.registers.offered()
        assert offered & mrg_rxbuf
        assert offered & mac
        assert not offered & csum
        assert driver.registers.read_config(5, 1) == 1


# Configuration space


def test_configuration_space_is_the_backends_with_our_number_of_queues(socket_path: Path) -> None:
    config = bytes(range(60))
    with Peer(socket_path, config=config), sim() as machine:
        driver = disk(machine, socket_path)
        assert driver.read_config(0, 34) == config[:34]
        assert driver.read_config(34, 2) == b"\x01\x00"
        assert driver.read_config(36, 24) == config[36:]


def test_changed_configuration_interrupts_the_driver(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.config = b"\x07" + bytes(59)
        assert peer.back is not None
        peer.back.send(2, b"", flags=1)
        eventually(machine, lambda: driver.config_interrupts == 1)
        assert driver.registers.read_config(0, 1) == 7


def test_write_to_the_cache_mode_goes_out_and_any_other_does_not(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        driver.registers.write_config(0, 4, 99)
        assert Request.SET_CONFIG not in peer.codes()
        driver.registers.write_config(32, 1, 1)
        assert peer.last(Request.SET_CONFIG).payload == struct.pack("<III", 32, 1, 0) + b"\x01"


def test_next_backend_is_told_the_cache_mode_again(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        driver.registers.write_config(32, 1, 1)
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert peer.last(Request.SET_CONFIG).payload[-1] == 1


# Backends that come and go


def test_nobody_at_the_socket_is_one_error_that_names_it(socket_path: Path) -> None:
    machine = sim()
    machine.add("virtio-blk", f"vhost-user={socket_path}", slot=3)
    with pytest.raises(HostError, match=str(socket_path)):
        machine.driver(3)
    machine.close()


@pytest.mark.parametrize("kind", ["virtio-blk", "virtio-net", "virtio-console"])
def test_missing_socket_is_said_before_anything_is_opened(socket_path: Path, kind: str) -> None:
    machine = SimMachine(plugins=[virtio_blk, virtio_net, virtio_console, user])
    function = machine.add(kind, f"vhost-user={socket_path}", slot=3)
    told = f"{kind}-3:0: backend vhost-user: socket {socket_path}: no such file or directory"
    assert function.check() == [f"{told}; is the vhost-user process running?"]
    machine.close()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (Path.touch, "{} is no socket"),
        (Path.mkdir, "{} is no socket"),
        (lambda path: path.symlink_to(path), "socket {}: too many levels of symbolic links"),
    ],
)
def test_file_that_is_no_socket_is_said_before_anything_is_opened(
    socket_path: Path, make: Callable[[Path], None], word: str
) -> None:
    make(socket_path)
    machine = sim()
    (line,) = machine.add("virtio-blk", f"vhost-user={socket_path}", slot=3).check()
    assert word.format(socket_path) in line
    machine.close()


def test_check_does_not_disturb_the_backend(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        function = machine.add("virtio-blk", f"vhost-user={socket_path}", slot=3)
        assert function.check() == []
        machine.driver(3)
        assert peer.connections == 1


def test_next_backend_gets_the_notes_of_the_last_and_the_ring_where_it_was(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        region = os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino
        description = peer.last(Request.SET_INFLIGHT_FD).payload
        queue = driver.queue(0)
        queue.send([bytes(16)], [1])
        machine.memory.write(queue.ring.layout.used + 2, (5).to_bytes(2, "little"))
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino == region
        assert peer.last(Request.SET_INFLIGHT_FD).payload == description
        assert Request.GET_INFLIGHT_FD not in peer.codes()
        assert struct.unpack("<II", peer.last(Request.SET_VRING_BASE).payload) == (0, 5)
        assert machine.failures == []


def test_notes_about_a_driver_that_is_gone_are_thrown_away(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        first = os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino
        peer.hang_up()
        driver.reset()
        driver.start()
        eventually(machine, lambda: peer.codes().count(Request.SET_INFLIGHT_FD) == 2)
        assert os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino != first


def test_backend_that_dies_while_it_is_greeted_is_tried_again(socket_path: Path) -> None:
    dying = []

    def die_three_times(connection: Connection, request: Received) -> None:
        if len(dying) < 3:
            dying.append(1)
            raise ConnectionError
        peer.answer_well(connection, request)

    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.answers[Request.GET_FEATURES] = die_three_times
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert len(dying) == 3
        assert machine.failures == []
        assert not driver.status & NEEDS_RESET


def test_driver_is_interrupted_when_the_next_backend_has_taken_over(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        before = driver.queue_interrupts(0)
        peer.hang_up()
        eventually(machine, lambda: driver.queue_interrupts(0) > before)


def test_next_backend_that_lacks_a_feature_in_use_fails_the_device(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.features &= ~(1 << 9)
        peer.hang_up()
        eventually(machine, lambda: bool(machine.failures))
        assert "FLUSH" in str(machine.failures[0][1])
        assert driver.status & NEEDS_RESET


@pytest.mark.parametrize(
    ("lacking", "word"), [(1 << 9, "FLUSH"), (1 << 29, "EVENT_IDX")], ids=["of the device", "of the ring"]
)
def test_backend_replaced_between_drivers_that_lacks_what_the_next_driver_accepts_fails_the_device(
    socket_path: Path, lacking: int, word: str
) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        peer.features &= ~lacking
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.GET_CONFIG in peer.codes())
        driver.start()
        machine.settle()
        assert [word in str(error) for _, error in machine.failures] == [True]
        assert driver.status & NEEDS_RESET
        assert Request.SET_FEATURES not in peer.codes(), "it never heard of a driver"
        peer.features |= lacking
        driver.start()
        machine.settle()
        assert not driver.status & NEEDS_RESET


def test_backend_replaced_between_drivers_may_lack_what_the_next_driver_does_not_accept(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        peer.features &= ~(1 << 9)
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.GET_CONFIG in peer.codes())
        driver.start(1 << 32)
        assert Request.SET_VRING_ENABLE in peer.codes()
        assert machine.failures == []


def test_ring_error_fails_the_device(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
        eventually(machine, lambda: bool(machine.failures))
        assert driver.status & NEEDS_RESET


def test_ring_error_is_noticed_again_after_the_reset(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        for number in (1, 2):
            driver.start()
            os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
            eventually(machine, lambda number=number: len(machine.failures) == number)  # type: ignore[misc]


def test_ring_error_without_a_free_descriptor_does_not_make_the_next_back_ends_errors_unheard(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()

        def full(*args: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patch:
            patch.setattr(os, "eventfd", full)
            os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
            eventually(machine, lambda: len(machine.failures) == 1)
        driver.start()
        os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
        eventually(machine, lambda: len(machine.failures) == 2)


def test_start_that_finds_no_descriptor_for_ring_errors_is_tried_again(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)

        def full() -> int:
            raise HostError("making an eventfd: too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(user, "make_eventfd", full)
            driver.start()
            assert Request.SET_FEATURES not in peer.codes()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert machine.failures == []
        os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
        eventually(machine, lambda: len(machine.failures) == 1)


@pytest.mark.parametrize("call", ["socketpair", "eventfd"])
def test_reconnection_that_finds_no_free_descriptor_is_tried_again(
    socket_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """socketpair: the back-end's own channel; eventfd: what the relay's rings are made of."""
    protocol = ALL & ~ProtocolFeature.INFLIGHT_SHMFD
    with Peer(socket_path, protocol=protocol) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.seen.clear()
        owner, real = (socket, socket.socketpair) if call == "socketpair" else (os, os.eventfd)
        left = [3]

        def full(*args: Any) -> Any:
            left[0] -= 1
            if left[0] >= 0:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(*args)

        monkeypatch.setattr(owner, call, full)
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert left[0] < 0
        assert machine.failures == []


def test_kick_that_the_backend_made_blocking_and_full_does_not_stop_the_guests_processor(socket_path: Path) -> None:
    with Peer(socket_path, features=1 << 32) as peer, sim() as machine:
        machine.add("virtio-net", f"vhost-user={socket_path}", slot=3)
        driver = machine.driver(3)
        for queue in range(2):
            machine.vm.fail("ioeventfd", errno.ENOSPC, after=queue)  # notifications come to us
        driver.start()
        eventually(machine, lambda: peer.codes().count(Request.SET_VRING_KICK) == 2)
        with jammed(peer.last(Request.SET_VRING_KICK).fds[0]):
            assert returns(lambda: driver.registers.notify(1))


# Hostile ones


def silence(connection: Connection, request: Received) -> None:
    """Nothing at all."""


def raw(build: Callable[[Received], bytes], fds: Callable[[], tuple[int, ...]] = tuple) -> Answer:
    def answer(connection: Connection, request: Received) -> None:
        data, along = build(request), fds()
        socket.send_fds(connection.socket, [data], along)
        for fd in set(along):
            os.close(fd)

    return answer


def flood() -> tuple[int, ...]:
    return (os.open("/dev/null", os.O_RDONLY),) * 200


def one() -> tuple[int, ...]:
    return (os.open("/dev/null", os.O_RDONLY),)


U64 = bytes(8)
BAD = {
    "silence": silence,
    "half a header": raw(lambda r: HEADER.pack(r.code, 5, 8)[:7]),
    "half a payload": raw(lambda r: HEADER.pack(r.code, 5, 8) + bytes(3)),
    "another request's answer": raw(lambda r: HEADER.pack(r.code + 1, 5, 8) + U64),
    "unknown answer": raw(lambda r: HEADER.pack(0xFFFFFFFF, 5, 8) + U64),
    "no reply flag": raw(lambda r: HEADER.pack(r.code, 1, 8) + U64),
    "version 2": raw(lambda r: HEADER.pack(r.code, 6, 8) + U64),
    "4 GiB": raw(lambda r: HEADER.pack(r.code, 5, 0xFFFFFFFF) + U64),
    "empty": raw(lambda r: HEADER.pack(r.code, 5, 0)),
    "too long": raw(lambda r: HEADER.pack(r.code, 5, 700) + bytes(700)),
    "200 descriptors": raw(lambda r: HEADER.pack(r.code, 5, 8) + U64, flood),
    "a descriptor": raw(lambda r: HEADER.pack(r.code, 5, 8) + U64, one),
    "refusal": raw(lambda r: HEADER.pack(r.code, 5, 8) + b"\xff" * 8),
}
GREETING = (Request.GET_FEATURES, Request.GET_PROTOCOL_FEATURES, Request.SET_OWNER, Request.GET_CONFIG)
STARTING = (Request.SET_FEATURES, Request.GET_INFLIGHT_FD, Request.ADD_MEM_REG, Request.SET_VRING_KICK)
HARMLESS = {("refusal", Request.GET_FEATURES), ("refusal", Request.GET_PROTOCOL_FEATURES)}  # all bits offered


def bad_cases(requests: tuple[Request, ...]) -> list[Any]:
    return [
        pytest.param(BAD[what], request, id=f"{request.name}-{what}")
        for request in requests
        for what in BAD
        if (what, request) not in HARMLESS
    ]


@pytest.mark.parametrize(("answer", "request_code"), bad_cases(GREETING))
def test_backend_that_greets_badly_is_one_error_before_the_guest_starts(
    socket_path: Path, answer: Answer, request_code: Request
) -> None:
    with Peer(socket_path, {request_code: answer}):
        machine = sim()
        machine.add("virtio-blk", f"vhost-user={socket_path}", slot=3)
        began = time.monotonic()
        with pytest.raises(HostError, match="vhost-user back-end"):
            machine.driver(3)
        assert time.monotonic() - began < 10 * LIMIT_S
        machine.close()


@pytest.mark.parametrize(("answer", "request_code"), bad_cases(STARTING))
def test_backend_that_starts_badly_fails_its_device_once_and_no_other(
    socket_path: Path, tmp_path: Path, answer: Answer, request_code: Request
) -> None:
    good_path = tmp_path / "good"
    with Peer(socket_path, {request_code: answer}), Peer(good_path) as good, sim() as machine:
        machine.add("virtio-blk", f"vhost-user={socket_path}", slot=3)
        machine.add("virtio-blk", f"vhost-user={good_path}", slot=4)
        driver, other = machine.driver(3), machine.driver(4)
        driver.start()
        machine.settle()
        assert len(machine.failures) == 1
        assert driver.status & NEEDS_RESET
        other.start()
        assert Request.SET_VRING_ENABLE in good.codes()
        assert len(machine.failures) == 1


@pytest.mark.parametrize(("answer", "request_code"), bad_cases((Request.GET_FEATURES, Request.SET_VRING_ENABLE)))
def test_next_backend_that_behaves_badly_fails_the_device_once_and_the_main_loop_never_waits(
    socket_path: Path, answer: Answer, request_code: Request
) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.answers[request_code] = answer
        peer.hang_up()
        longest = 0.0
        while not machine.failures:
            began = time.monotonic()
            machine.main_loop.step(0.01)
            longest = max(longest, time.monotonic() - began)
        machine.settle()
        assert longest < LIMIT_S / 2
        assert len(machine.failures) == 1
        assert driver.status & NEEDS_RESET


@pytest.mark.parametrize(
    "answer", [pytest.param(BAD[what], id=what) for what in BAD if what not in ("refusal", "too long")]
)
def test_backend_that_stops_badly_does_not_keep_the_driver_from_resetting(socket_path: Path, answer: Answer) -> None:
    with Peer(socket_path, {Request.GET_VRING_BASE: answer}) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        driver.reset()
        del peer.answers[Request.GET_VRING_BASE]
        driver.start()
        eventually(machine, lambda: peer.codes().count(Request.SET_VRING_ENABLE) == 2)
        assert not driver.status & NEEDS_RESET


def test_driver_that_resets_a_failed_device_gets_a_new_chance(socket_path: Path) -> None:
    with Peer(socket_path, {Request.SET_VRING_KICK: silence}) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        machine.settle()
        assert driver.status & NEEDS_RESET
        del peer.answers[Request.SET_VRING_KICK]
        driver.start()
        machine.settle()
        assert not driver.status & NEEDS_RESET
        assert peer.connections == 2


@pytest.mark.parametrize("data", [HEADER.pack(1, 5, 8) + U64, b"x" * 5000], ids=["answer", "garbage"])
def test_backend_that_speaks_unasked_fails_its_device(socket_path: Path, data: bytes) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.say(data)
        eventually(machine, lambda: len(machine.failures) == 1)
        assert driver.status & NEEDS_RESET


@pytest.mark.parametrize(
    ("code", "fds"),
    [(1, tuple), (3, one), (77, tuple), (2, one), (2, flood)],
    ids=["iotlb", "notifier", "77", "fd", "fds"],
)
def test_backend_that_asks_for_what_was_not_agreed_fails_its_device(
    socket_path: Path, code: int, fds: Callable[[], tuple[int, ...]]
) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        disk(machine, socket_path).start()
        assert peer.back is not None
        along = fds()
        peer.back.send(code, bytes(8), flags=1, fds=along)
        for fd in set(along):
            os.close(fd)
        eventually(machine, lambda: len(machine.failures) == 1)


def test_flood_of_configuration_changes_costs_few_questions(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        disk(machine, socket_path).start()
        assert peer.back is not None
        peer.seen.clear()
        for _ in range(500):
            peer.back.send(2, b"", flags=1)
            machine.main_loop.step()
        eventually(machine, lambda: Request.GET_CONFIG in peer.codes())
        assert len(peer.seen) < 20
        assert machine.failures == []


def test_answers_in_single_bytes_are_understood(socket_path: Path) -> None:
    def drip(connection: Connection, request: Received) -> None:
        for byte in HEADER.pack(request.code, 5, 8) + struct.pack("<Q", BLK_FEATURES):
            connection.socket.send(bytes((byte,)))
            time.sleep(0.001)

    with Peer(socket_path, {Request.GET_FEATURES: drip}) as peer, sim() as machine:
        disk(machine, socket_path).start()
        assert Request.SET_VRING_ENABLE in peer.codes()


@pytest.mark.parametrize(
    ("request_code", "value", "word"),
    [
        (Request.GET_FEATURES, BLK_FEATURES & ~(1 << 32), "VERSION_1"),
        (Request.GET_PROTOCOL_FEATURES, int(ALL & ~ProtocolFeature.CONFIG), "CONFIG"),
        (Request.GET_QUEUE_NUM, 0, "queues"),
    ],
)
def test_backend_that_can_not_serve_the_device_is_refused(
    socket_path: Path, request_code: Request, value: int, word: str
) -> None:
    with Peer(socket_path, {request_code: raw(lambda r: HEADER.pack(r.code, 5, 8) + struct.pack("<Q", value))}):
        machine = sim()
        machine.add("virtio-blk", f"vhost-user={socket_path}", slot=3)
        with pytest.raises(HostError, match=word):
            machine.driver(3)
        machine.close()


@pytest.mark.parametrize("status", [0, 1 | 2, 1 | 2 | 64], ids=["nothing", "no FEATURES_OK", "NEEDS_RESET"])
def test_backend_that_clears_features_ok_fails_the_device_before_it_is_told_of_memory(
    socket_path: Path, status: int
) -> None:
    refusal = raw(lambda r: HEADER.pack(r.code, 5, 8) + struct.pack("<Q", status))
    with Peer(socket_path, {Request.GET_STATUS: refusal}) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        machine.settle()
        assert ["it refused the features that the driver chose" in str(error) for _, error in machine.failures] == [
            True
        ]
        assert driver.status & NEEDS_RESET
        assert Request.ADD_MEM_REG not in peer.codes()
        del peer.answers[Request.GET_STATUS]
        driver.start()
        machine.settle()
        assert not driver.status & NEEDS_RESET


def test_backend_with_too_few_memory_slots_fails_the_device(socket_path: Path) -> None:
    answers = {Request.GET_MAX_MEM_SLOTS: raw(lambda r: HEADER.pack(r.code, 5, 8) + U64)}
    with Peer(socket_path, answers), sim() as machine:
        disk(machine, socket_path).start()
        machine.settle()
        assert "memory regions" in str(machine.failures[0][1])
