"""Rings as a process that was killed may leave them, and what the next process makes of them: interrupts that are owed,
by the last process or for want of an eventfd, and a card that goes on.
"""

import os
import struct
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, Request
from acrn_dm.base.events.eventfd import drain
from acrn_dm.ring.factory import make_driver_ring, ring_format
from acrn_dm.ring.layout import U16, USED_F_NO_NOTIFY
from acrn_dm.ring.packed.layout import EVENT_DESC, EVENT_DISABLE, PACKED_EVENT
from acrn_dm.testing import DriverRing, RingLayout
from acrn_dm.testing.driver import EVENT_IDX, PACKED
from tests.backends.user.user_rig import Daemon
from tests.export.vhost_user.export_rig import USER, VERSION_1, Client, say, wait_used
from tests.patience import comes_true

OUTPUT = 1  # of a console
RX, TX = 0, 1
SIZE = 8
GONE_BY = 0xFFFC  # descriptors or indices: soon round
FRAME = bytes(12) + b"\xff" * 6 + b"\x52\x54\0\0\0\1" + b"\x08\x06" + b"who has" * 8
ROOM = 2048
FORMATS = {"split": 0, "split-event": EVENT_IDX, "packed": PACKED, "packed-event": PACKED | EVENT_IDX}


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("card")
    words = [sys.executable, "-m", "acrn_dm.export.cli", "vhost-user", "virtio-net,driver=loop"]
    daemon = Daemon([*words, f"--socket-path={folder / 's'}"], folder / "s", folder / "log")
    daemon.start()
    yield daemon
    daemon.kill()


@attrs.define(eq=False)
class Side:
    """The driver's side of one ring, with the eventfds of the process that serves it."""

    client: Client
    index: int
    features: int
    kick: int = -1
    call: int = -1
    ring: Any = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        layout = ring_format(self.features).lay_out(0x10000 * (1 + self.index), SIZE, 64)
        self.ring = make_driver_ring(self.features, layout, self.client, start=GONE_BY)

    def leave(self, *, asks: bool) -> None:
        """What it wants of the driver is what the process that died said last: a kick, but for none of what comes
        next, or none.
        """
        layout, event = self.ring.layout, GONE_BY + 5 if asks else GONE_BY - 5
        if self.features & PACKED:
            flags = EVENT_DESC if asks and self.features & EVENT_IDX else EVENT_DISABLE
            self.client.write(layout.used, PACKED_EVENT.pack(event % SIZE, flags))
        elif self.features & EVENT_IDX:
            self.client.write(layout.avail_event_at, U16.pack(event & 0xFFFF))
        else:
            self.client.write(layout.used_flags_at, U16.pack(USED_F_NO_NOTIFY))

    def add(self, count: int = 1) -> None:
        """Buffers, or frames; the process is told if it wants that."""
        for _ in range(count):
            at = 0x100000 * (1 + self.index) + ROOM * (self.ring.next_avail % SIZE)
            self.client.write(at, FRAME if self.index == TX else bytes(ROOM))
            self.ring.add_chain(*([(at, len(FRAME))], []) if self.index == TX else ([], [(at, ROOM)]))
            self.ring.publish()
            if self.kick >= 0 and self.ring.wants_kick():
                os.eventfd_write(self.kick, 1)

    def hand_over(self) -> None:
        """As ``vhost_virtqueue_start`` of QEMU does it."""
        must, index, layout = self.client.must, self.index, self.ring.layout
        must(Request.SET_VRING_NUM, struct.pack("<II", index, SIZE))
        must(Request.SET_VRING_BASE, struct.pack("<II", index, self.ring.position.base))
        addresses = (USER + part for part in (layout.desc, layout.used, layout.avail))
        must(Request.SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, *addresses, 0))
        self.kick = self.client.eventfd()
        must(Request.SET_VRING_KICK, struct.pack("<Q", index), (self.kick,))
        self.call = self.client.call(index)

    def returned(self, count: int) -> bool:
        """Whether as many come back, with an interrupt for the last of them."""
        self.ring.enable_interrupts()
        found: list[Any] = []

        def all_there() -> bool:
            found.extend(self.ring.used())
            return len(found) >= count

        return comes_true(all_there) and len(found) == count


@pytest.fixture(params=FORMATS.values(), ids=FORMATS.keys())
def sides(card: Daemon, request: pytest.FixtureRequest) -> Iterator[tuple[Side, Side]]:
    """Where to receive and where to send."""
    client = Client.connect(card.socket)
    client.negotiate()
    client.must(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES | request.param))
    client.share_memory()
    yield Side(client, RX, request.param), Side(client, TX, request.param)
    client.close()


def hand_over(sides: tuple[Side, Side]) -> None:
    """As QEMU does it: with one eventfd when it connects, and the one that it looks at when a ring has been started."""
    client = sides[0].client
    for side in sides:
        client.call(side.index)
        client.must(Request.SET_VRING_ENABLE, struct.pack("<II", side.index, 1))
    for side in sides:
        side.hand_over()


@pytest.mark.parametrize("asks", [True, False], ids=["asked-for-another-kick", "asked-for-none"])
@pytest.mark.parametrize("before", [True, False], ids=["buffers-before", "buffers-after"])
def test_frames_go_round_whatever_the_last_process_wanted_to_be_told(
    sides: tuple[Side, Side], asks: bool, before: bool
) -> None:
    """The driver kicks where it is asked to, and has not been asked by the process that is there now."""
    rx, tx = sides
    for side in sides:
        side.leave(asks=asks)
    if before:
        rx.add(4)
        tx.add(2)
    hand_over(sides)
    if not before:
        rx.add(4)
        tx.add(2)
    assert rx.returned(2)
    assert tx.returned(2)
    for _ in range(3):
        rx.add()
        tx.add()
        assert rx.returned(1)
        assert tx.returned(1)


def test_driver_is_interrupted_for_what_was_there_before(sides: tuple[Side, Side]) -> None:
    """It waits for the first frame to be returned and looks at nothing before it is interrupted."""
    rx, tx = sides
    rx.add(4)
    tx.add(2)
    hand_over(sides)
    for side in sides:
        assert comes_true(lambda side=side: drain(side.call) > 0)  # type: ignore[misc]
        assert side.returned(2)


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


def test_interrupt_that_went_to_an_eventfd_of_before_the_start_is_given_to_the_next_one(
    client: Client, ring: DriverRing
) -> None:
    """QEMU brings one when it connects, which it does not look at, and the one that counts behind SET_VRING_KICK."""
    begin(client)
    client.call(OUTPUT)
    kick = client.start(OUTPUT, ring.layout, 0)
    enable(client)
    answered(client, ring, kick, 1)
    call = client.call(OUTPUT)
    assert comes_true(lambda: drain(call) == 1)
    following = client.call(OUTPUT)  # as a masked vector's
    assert client.queues()
    assert drain(following) == 0


def test_driver_that_comes_after_a_reset_is_owed_nothing(client: Client, ring: DriverRing) -> None:
    begin(client)
    kick = client.start(OUTPUT, ring.layout, 0)
    enable(client)
    answered(client, ring, kick, 1)
    client.must(Request.RESET_DEVICE)
    call = client.call(OUTPUT)
    assert client.queues()
    assert drain(call) == 0


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
