"""Hostile back-ends: each costs its own device at most, and never a wait on the main loop."""

import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.backends.wire.message import ProtocolFeature, Request
from acrn_dm.base.errors import HostError
from acrn_dm.testing.driver import NEEDS_RESET
from tests.backends.user.machines import LIMIT_S, disk, impatient, sim
from tests.backends.user.peers.peer import ALL, BLK_FEATURES, HEADER, Answer, Connection, Peer, Received
from tests.backends.user.user_rig import eventually
from tests.patience import asleep_s

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")


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
        began = asleep_s()
        with impatient(), pytest.raises(HostError, match="vhost-user back-end"):
            machine.driver(3)
        assert asleep_s() - began < 10 * LIMIT_S
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
        with impatient():
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
        with impatient():
            while not machine.failures:
                began = asleep_s()
                machine.main_loop.step(0.01)
                longest = max(longest, asleep_s() - began)
        machine.settle()
        assert longest < 0.9 * LIMIT_S
        assert len(machine.failures) == 1
        assert driver.status & NEEDS_RESET


@pytest.mark.parametrize(
    "answer", [pytest.param(BAD[what], id=what) for what in BAD if what not in ("refusal", "too long")]
)
def test_backend_that_stops_badly_does_not_keep_the_driver_from_resetting(socket_path: Path, answer: Answer) -> None:
    with Peer(socket_path, {Request.GET_VRING_BASE: answer}) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        with impatient():
            driver.reset()
        del peer.answers[Request.GET_VRING_BASE]
        driver.start()
        eventually(machine, lambda: peer.codes().count(Request.SET_VRING_ENABLE) == 2)
        assert not driver.status & NEEDS_RESET


def test_driver_that_resets_a_failed_device_gets_a_new_chance(socket_path: Path) -> None:
    with Peer(socket_path, {Request.SET_VRING_KICK: silence}) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        with impatient():
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
