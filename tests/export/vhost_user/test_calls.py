"""Interrupts that are owed: by a process that died before it gave one, and while there was nobody to give them to."""

import os
import struct
from collections.abc import Iterator

import pytest

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, Request
from acrn_dm.base.events.eventfd import drain
from acrn_dm.testing import DriverRing, RingLayout
from tests.backends.user.user_rig import Daemon
from tests.export.vhost_user.export_rig import EVENT_IDX, VERSION_1, Client, say, wait_used
from tests.patience import comes_true

OUTPUT = 1


@pytest.fixture
def ring(client: Client) -> DriverRing:
    """A driver with event index."""
    return DriverRing(client, RingLayout.at(0x10000, 64), event_idx=True)


@pytest.fixture
def next_client(daemon: Daemon, client: Client) -> Iterator[Client]:
    """The same driver's, with the same memory, when the first one has gone."""
    with_memory_of_its_own = Client.connect(daemon.socket)
    following = Client(with_memory_of_its_own.socket, client.fd, client.ram)
    yield following
    for fd in (with_memory_of_its_own.fd, *following.opened):
        os.close(fd)
    following.socket.close()


def begin(client: Client) -> None:
    client.negotiate()
    client.must(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | EVENT_IDX | PROTOCOL_FEATURES))
    client.share_memory()


def answered(client: Client, ring: DriverRing, kick: int, count: int) -> None:
    say(client, ring, b"x")
    os.eventfd_write(kick, 1)
    wait_used(ring, count)


def enable(client: Client) -> None:
    client.must(Request.SET_VRING_ENABLE, struct.pack("<II", OUTPUT, 1))


def test_next_process_interrupts_for_what_the_last_one_showed(
    client: Client, next_client: Client, ring: DriverRing
) -> None:
    """The driver waits for index 1 to be passed, which it is, and looks at nothing before it is interrupted."""
    begin(client)
    kick = client.start(OUTPUT, ring.layout, 0)
    enable(client)
    answered(client, ring, kick, 1)
    client.socket.close()
    begin(next_client)
    kick = next_client.start(OUTPUT, ring.layout, 1)
    call = next_client.call(OUTPUT)
    enable(next_client)
    answered(next_client, ring, kick, 2)
    assert comes_true(lambda: drain(call) > 0)


def test_interrupt_without_an_eventfd_is_given_when_there_is_one(client: Client, ring: DriverRing) -> None:
    begin(client)
    kick = client.start(OUTPUT, ring.layout, 0)
    enable(client)
    answered(client, ring, kick, 1)
    call = client.call(OUTPUT)
    assert comes_true(lambda: drain(call) == 1)


def test_ring_that_goes_on_where_it_was_stopped_owes_nothing(client: Client, ring: DriverRing) -> None:
    begin(client)
    kick = client.start(OUTPUT, ring.layout, 0)
    call = client.call(OUTPUT)
    enable(client)
    drain(call)
    answered(client, ring, kick, 1)
    assert comes_true(lambda: drain(call) == 1)
    client.must(Request.SET_VRING_ENABLE, struct.pack("<II", OUTPUT, 0))
    enable(client)
    assert client.queues()
    assert drain(call) == 0
