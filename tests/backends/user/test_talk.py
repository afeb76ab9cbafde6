"""Conversations with a back-end that takes its time, message by message."""

import os
import socket
from collections.abc import Iterator

import pytest

from acrn_dm.backends.user import talk as user_talk
from acrn_dm.backends.user.exchange import Exchange, Talk
from acrn_dm.backends.user.talk import Peer, Plan, Vring
from acrn_dm.backends.wire.channel import Channel
from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, ProtocolFeature, Request
from acrn_dm.backends.wire.payload import MAX_QUEUES
from tests.backends.user.peers.peer import NEED_REPLY, Connection

ANSWERED = {Request.GET_FEATURES, Request.GET_VRING_BASE}


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


def talks(peer: Peer, fd: int) -> dict[str, Talk[object]]:
    vrings = tuple(
        Vring(index=index, size=256, desc=0, avail=0, used=0, base=0, kick_fd=fd, call_fd=fd)
        for index in range(MAX_QUEUES)
    )
    indices = tuple(vring.index for vring in vrings)
    return {
        "set up": user_talk.set_up(peer, Plan(features=0, regions=(), vrings=vrings), fd),
        "enable": user_talk.enable(peer, dict.fromkeys(indices, True)),
        "stop": user_talk.stop(peer, indices),
    }


def serve(connection: Connection) -> int:
    """Read what is there and answer what is to be answered; the number of requests."""
    count = 0
    connection.socket.setblocking(False)
    while True:
        try:
            request = connection.receive()
        except BlockingIOError:
            return count
        assert request is not None
        count += 1
        for fd in request.fds:
            os.close(fd)
        if request.code in ANSWERED or request.flags & NEED_REPLY:
            verdict = request.payload[:4] + bytes(4) if request.code == Request.GET_VRING_BASE else bytes(8)
            connection.send(request.code, verdict)


@pytest.mark.parametrize("protocol", [ProtocolFeature(0), ProtocolFeature.REPLY_ACK], ids=["no reply-ack", "reply-ack"])
@pytest.mark.parametrize("what", ["set up", "enable", "stop"])
def test_backend_that_reads_only_when_it_is_waited_for_is_told_of_as_many_rings_as_there_can_be(
    what: str, protocol: ProtocolFeature, fd: int
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel, connection = Channel(ours), Connection(theirs)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        peer = Peer(features=PROTOCOL_FEATURES, protocol=protocol)
        exchange = Exchange(channel, talks(peer, fd)[what])
        longest, told = 0, 0
        while not exchange.advance():
            count = serve(connection)
            longest, told = max(longest, count), told + count
        assert told >= MAX_QUEUES
        assert longest <= user_talk.MAX_AHEAD + 1
