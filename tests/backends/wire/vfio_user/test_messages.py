"""vfio-user on the wire: a stream is cut into its messages, and versions are understood or refused."""

import contextlib
import os
import socket

from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user import version
from acrn_dm.backends.wire.vfio_user.channel import Channel
from acrn_dm.backends.wire.vfio_user.message import Command, Message


def message(payload: bytes) -> Message:
    return Message(id=1, command=Command.VERSION, flags=0, error=0, payload=payload, fds=[])


@given(payload=st.binary(max_size=80))
def test_any_version_is_understood_or_refused(payload: bytes) -> None:
    with contextlib.suppress(PeerError):
        version.parse(message(payload))


@given(st.integers(4, 300), st.booleans())
def test_our_version_fits(room: int, multi: bool) -> None:
    reply = version.reply(room, multi=multi)
    assert 4 <= len(reply) <= room
    assert len(reply) == 4 or reply.endswith(b"\0")
    major, minor, said = version.parse(message(reply))
    assert (major, minor) == (0, 0)
    assert room < 150 or said.get("write_multiple", False) is multi


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=6), st.lists(st.integers(1, 60), min_size=1))
def test_stream_is_cut_into_its_messages(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(wire.encode(i, 13, payload) for i, payload in enumerate(payloads))
    ours, theirs = socket.socketpair()
    channel, got, turn = Channel(ours), [], 0
    with theirs:
        while stream:
            size = cuts[turn % len(cuts)]
            theirs.sendall(stream[:size])
            stream, turn = stream[size:], turn + 1
            while (it := channel.receive()) is not None:
                got.append((it.id, it.payload))
        channel.close()
    assert got == list(enumerate(payloads))


def test_descriptors_belong_to_the_message_that_they_came_with() -> None:
    ours, theirs = socket.socketpair()
    channel, fds = Channel(ours), os.pipe()
    with theirs:
        theirs.sendall(wire.encode(1, 13))
        socket.send_fds(theirs, [wire.encode(2, 13, b"data")], list(fds))
        theirs.sendall(wire.encode(3, 13))
        got = [channel.receive() for _ in range(3)]
        channel.close()
    counts = []
    for it in got:
        assert it is not None
        counts.append(len(it.fds))
        it.close()
    assert counts == [0, 2, 0]
    for fd in fds:
        os.close(fd)
