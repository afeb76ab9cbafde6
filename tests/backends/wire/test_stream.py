"""Bytes and descriptors out of a socket: each fault of the peer, and of the connection."""

import os
import socket
from collections.abc import Iterator

import pytest

from acrn_dm.backends.wire import stream
from acrn_dm.backends.wire.message import PeerError, PeerGone

LIMIT = 3


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def send(peer: socket.socket, data: bytes, count: int) -> None:
    read, write = os.pipe()
    socket.send_fds(peer, [data], [read] * count)
    os.close(read)
    os.close(write)


def test_as_much_is_read_as_was_asked_for(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.send(b"12345")
    assert [stream.read(ours, 3, [], LIMIT) for _ in range(3)] == [b"123", b"45", None]


@pytest.mark.parametrize("before", [0, 1, 2])
def test_descriptors_up_to_the_limit_are_the_callers(ends: tuple[socket.socket, socket.socket], before: int) -> None:
    ours, theirs = ends
    fds = [os.dup(0) for _ in range(before)]
    send(theirs, b"x", LIMIT - before)
    assert stream.read(ours, 1, fds, LIMIT) == b"x"
    assert len(fds) == LIMIT
    for fd in fds:
        assert not os.get_inheritable(fd) or fd in fds[:before]
        os.close(fd)


@pytest.mark.parametrize("before", [0, 1, LIMIT])
def test_one_more_closes_all_of_them(ends: tuple[socket.socket, socket.socket], before: int) -> None:
    ours, theirs = ends
    fds = [os.dup(0) for _ in range(before)]
    lowest = os.dup(0)
    os.close(lowest)
    send(theirs, b"x", LIMIT + 1 - before)
    with pytest.raises(PeerError, match=f"more than {LIMIT}"):
        stream.read(ours, 1, fds, LIMIT)
    assert fds == []
    again = os.dup(0)
    os.close(again)
    assert again <= lowest  # nothing that came is open any more


def test_end_of_the_connection(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(PeerGone):
        stream.read(ours, 1, [], LIMIT)


def test_socket_that_another_thread_has_closed_is_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = ends
    ours.close()
    with pytest.raises(PeerGone):
        stream.read(ours, 1, [], LIMIT)


def test_other_failures_are_told() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as alone, pytest.raises(PeerError, match="failed"):
        stream.read(alone, 1, [], LIMIT)
