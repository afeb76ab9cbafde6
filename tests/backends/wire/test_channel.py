"""Messages out of a stream, however it is cut."""

import contextlib
import os
import resource
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.backends.wire.channel import Channel, connect
from acrn_dm.backends.wire.message import Message, PeerError, PeerGone
from acrn_dm.base.errors import HostError
from tests.backends.user.user_rig import open_descriptors, returns

HEADER = struct.Struct("<III")


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    before = open_descriptors()
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()
    assert open_descriptors() == before


Pair = tuple[Channel, socket.socket]


def message(code: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(code, 1, len(payload)) + payload


def received(channel: Channel) -> Message:
    found = channel.receive()
    assert found is not None
    return found


def with_fds(peer: socket.socket, data: bytes, count: int) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    socket.send_fds(peer, [data], fds)
    for fd in fds:
        os.close(fd)


def test_two_messages_in_one_piece_are_two(pair: Pair) -> None:
    channel, peer = pair
    peer.send(message(1, b"abc") + message(2))
    assert (received(channel).payload, received(channel).code) == (b"abc", 2)
    assert channel.receive() is None


def test_one_message_in_single_bytes_is_one(pair: Pair) -> None:
    channel, peer = pair
    data = message(5, b"abcdefgh")
    for byte in data[:-1]:
        peer.send(bytes((byte,)))
        assert channel.receive() is None
    peer.send(data[-1:])
    assert received(channel).payload == b"abcdefgh"


@pytest.mark.parametrize("cut", [0, 12])
def test_descriptors_belong_to_the_message_they_came_with(pair: Pair, cut: int) -> None:
    channel, peer = pair
    peer.send(message(1, b"before"))
    data = message(2, b"payload")
    peer.send(data[:cut])
    with_fds(peer, data[cut:], 2)
    peer.send(message(3))
    first, second, third = received(channel), received(channel), received(channel)
    assert [len(m.fds) for m in (first, second, third)] == [0, 2, 0]
    second.close()


def test_descriptors_of_an_incomplete_message_are_closed_with_the_channel(pair: Pair) -> None:
    channel, peer = pair
    with_fds(peer, message(1, b"abc")[:-1], 3)
    assert channel.receive() is None


def test_descriptors_nobody_takes_are_closed(pair: Pair) -> None:
    channel, peer = pair
    with_fds(peer, message(1), 3)
    found = received(channel)
    with pytest.raises(PeerError, match="3 descriptors"):
        found.take_fd()
    found.close()
    assert found.fds == []


def test_too_many_descriptors_are_an_error_and_closed(pair: Pair) -> None:
    channel, peer = pair
    with_fds(peer, message(1), 9)
    with pytest.raises(PeerError, match="descriptors"):
        channel.receive()


def test_too_many_descriptors_spread_over_one_message_are_an_error(pair: Pair) -> None:
    channel, peer = pair
    data = message(1, b"payload")
    with_fds(peer, data[:4], 5)
    with_fds(peer, data[4:], 5)
    with pytest.raises(PeerError, match="descriptors"):
        channel.receive()


@pytest.mark.parametrize("header", [(1, 2, 0), (1, 0, 0), (1, 1, 4097), (1, 1, 0xFFFFFFFF)])
def test_bad_header_is_an_error_before_its_payload_is_read(pair: Pair, header: tuple[int, int, int]) -> None:
    channel, peer = pair
    peer.send(HEADER.pack(*header))
    with pytest.raises(PeerError):
        channel.receive()


def test_end_of_the_connection_is_told_after_what_was_complete(pair: Pair) -> None:
    channel, peer = pair
    peer.send(message(1) + b"x")
    peer.shutdown(socket.SHUT_WR)
    received(channel)
    with pytest.raises(PeerGone):
        channel.receive()


def test_peer_that_does_not_read_is_an_error_and_not_waited_for(pair: Pair) -> None:
    channel, _ = pair

    def flood() -> None:
        for _ in range(100_000):
            channel.send(5, bytes(256))

    with pytest.raises(PeerError, match="does not read"):
        flood()


def test_connecting_without_a_free_descriptor_is_the_hosts_error(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(HostError, match="Too many open files"):
            connect(tmp_path / "s")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_sending_to_a_peer_that_is_gone(pair: Pair) -> None:
    channel, peer = pair
    peer.close()
    with pytest.raises(PeerGone):
        channel.send(5)


def test_socket_that_the_peer_fills_and_makes_blocking_is_not_waited_for(pair: Pair) -> None:
    """One that came in SET_BACKEND_REQ_FD is the peer's, flags and all."""
    channel, peer = pair
    with socket.socket(fileno=os.dup(channel.fd)) as same:
        same.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                same.send(bytes(4096))
        os.set_blocking(channel.fd, True)

        def send() -> None:
            with pytest.raises(PeerError, match="does not read"):
                channel.send(1)

        assert returns(send)
        assert returns(channel.receive)
        peer.shutdown(socket.SHUT_RDWR)  # lets those go who wait
