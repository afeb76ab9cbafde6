"""virtio-net's control commands and the frames under way: what was read from the tap before a command was acknowledged
does not reach a driver that has just said that it takes no more of it.
"""

import contextlib
import fcntl
import termios

import pytest

from tests.devices.virtio_net.net_rig import GUEST_CSUM, GUEST_TSO4, NEEDS_CSUM, PLAIN, TCPV4, Card, card, frame, vnet
from tests.virtio.pause import pause, resume

CONTROL, SECOND_RX, SECOND_TX = 4, 2, 3
ALL_OFFLOADS = GUEST_CSUM | GUEST_TSO4
SEGMENTED = vnet(NEEDS_CSUM, TCPV4, 54, 1448, 34, 16) + bytes(2)
OPEN_CHECKSUM = vnet(NEEDS_CSUM, start=34, offset=16) + bytes(2)
pytestmark = pytest.mark.usefixtures("way")


def set_pairs(c: Card, pairs: int) -> bytes:
    return c.driver.queue(CONTROL).transfer([bytes((4, 0)), pairs.to_bytes(2, "little")], [1]).data


def set_offloads(c: Card, offloads: int) -> bytes:
    return c.driver.queue(CONTROL).transfer([bytes((5, 0)), offloads.to_bytes(8, "little")], [1]).data


def post(c: Card, queue: int, *sizes: int) -> None:
    for size in sizes:
        c.driver.queue(queue).send([], [size])
    c.driver.queue(queue).kick()
    c.machine.settle()


def arrive(c: Card, pair: int, data: bytes) -> None:
    c.peers[pair].send(data)
    c.machine.settle()


def received(c: Card, queue: int) -> list[bytes]:
    """Frames, without their packet headers, put together from as many buffers as each has."""
    buffers = [d.data[: d.written] for d in c.driver.queue(queue).completed()]
    frames = []
    while buffers:
        count = int.from_bytes(buffers[0][10:12], "little")
        frames.append(b"".join(buffers[:count])[12:])
        del buffers[:count]
    return frames


def drain(c: Card, pair: int) -> int:
    """How many frames have left by *pair*."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while c.peers[pair].recv(4096):
            count += 1
    return count


def fetch_without_room(c: Card, pair: int, data: bytes) -> None:
    """A frame that has been read, because there was a buffer, and waits, because it was too small."""
    post(c, 2 * pair, 64)
    arrive(c, pair, data)
    unread = fcntl.ioctl(c.taps[pair].fd, termios.FIONREAD, bytes(4))
    assert unread == bytes(4), "the frame was not read"


def test_net_mq_limit() -> None:
    """net.mq.limit: a frame that was read for pair 2 is not delivered after VQ_PAIRS_SET 1, nor when it is used again,
    which goes on with what comes then.
    """
    with card(text="tap=t0,mq=2") as c:
        assert set_pairs(c, 2) == b"\0"
        fetch_without_room(c, 1, PLAIN + frame(b"stale", size=200))
        assert set_pairs(c, 1) == b"\0"
        post(c, SECOND_RX, 2048, 2048)
        assert received(c, SECOND_RX) == []
        assert set_pairs(c, 2) == b"\0"
        arrive(c, 1, PLAIN + frame(b"fresh", size=1000))
        assert received(c, SECOND_RX) == [frame(b"fresh", size=1000)]


def test_pair_that_rests_reads_nothing_and_the_first_goes_on() -> None:
    with card(text="tap=t0,mq=2") as c:
        post(c, SECOND_RX, 2048)
        arrive(c, 1, PLAIN + frame(b"not now"))
        c.driver.queue(SECOND_RX).kick(force=True)
        c.machine.settle()
        assert received(c, SECOND_RX) == []
        post(c, 0, 2048)
        arrive(c, 0, PLAIN + frame(b"first"))
        assert received(c, 0) == [frame(b"first")]


def test_buffers_posted_while_a_pair_rested_are_used_without_another_kick() -> None:
    with card(text="tap=t0,mq=2") as c:
        post(c, SECOND_RX, 2048)
        set_pairs(c, 2)
        arrive(c, 1, PLAIN + frame(b"now"))
        assert received(c, SECOND_RX) == [frame(b"now")]


def test_frames_a_pair_was_given_before_it_rested_are_sent() -> None:
    total = 900
    with card(text="tap=t0,mq=2", memory=32 << 20) as c:
        set_pairs(c, 2)
        for i in range(total):
            c.driver.queue(SECOND_TX).send([PLAIN + frame(i.to_bytes(2, "little"), size=200)])
        c.driver.queue(SECOND_TX).kick()
        c.machine.settle()
        assert len(c.driver.queue(SECOND_TX).completed()) < total
        set_pairs(c, 1)
        sent = 0
        while (more := drain(c, 1)) > 0:
            sent += more
            c.machine.settle()
        assert sent == total


def test_pairs_in_use_stay_through_a_pause() -> None:
    with card(text="tap=t0,mq=2") as c:
        set_pairs(c, 2)
        pause(c.machine.bus.functions[0])
        resume(c.machine.bus.functions[0])
        post(c, SECOND_RX, 2048)
        arrive(c, 1, PLAIN + frame(b"resumed"))
        assert received(c, SECOND_RX) == [frame(b"resumed")]


@pytest.mark.parametrize("left", [0, GUEST_CSUM], ids=["none", "checksums"])
def test_d_net_offloads_mask(left: int) -> None:
    """d.net.offloads.mask: a frame that was read with offloads which are switched off before there is room for it does
    not reach the driver.
    """
    with card(text="tap=t0,mq=2") as c:
        fetch_without_room(c, 0, SEGMENTED + frame(b"stale", size=3000))
        assert set_offloads(c, left) == b"\0"
        post(c, 0, 4096)
        assert received(c, 0) == []
        arrive(c, 0, PLAIN + frame(b"plain", size=1000))
        assert received(c, 0) == [frame(b"plain", size=1000)]


@pytest.mark.parametrize(
    ("left", "passes"),
    [(ALL_OFFLOADS, {b"gso", b"sum"}), (GUEST_CSUM, {b"sum"}), (0, set())],
    ids=["all", "checksums", "none"],
)
def test_frames_that_arrive_after_the_command_obey_it(left: int, passes: set[bytes]) -> None:
    with card(text="tap=t0,mq=2") as c:
        assert set_offloads(c, left) == b"\0"
        post(c, 0, 4096, 4096, 4096)
        for data in (SEGMENTED + frame(b"gso", size=3000), OPEN_CHECKSUM + frame(b"sum")):
            arrive(c, 0, data)
        assert {data[14:17] for data in received(c, 0)} == passes


def test_offloads_switched_off_stay_off_through_a_pause_and_come_back_with_the_reset() -> None:
    with card(text="tap=t0,mq=2") as c:
        set_offloads(c, 0)
        pause(c.machine.bus.functions[0])
        resume(c.machine.bus.functions[0])
        post(c, 0, 4096)
        arrive(c, 0, SEGMENTED + frame(size=3000))
        assert received(c, 0) == []
        c.driver.start()
        post(c, 0, 4096)
        arrive(c, 0, SEGMENTED + frame(b"again", size=3000))
        assert len(received(c, 0)) == 1


def test_frame_the_driver_still_takes_waits_through_the_command() -> None:
    with card(text="tap=t0,mq=2") as c:
        fetch_without_room(c, 0, OPEN_CHECKSUM + frame(b"kept", size=200))
        set_offloads(c, GUEST_CSUM)
        post(c, 0, 2048)
        assert received(c, 0) == [frame(b"kept", size=200)]


def control(c: Card, *parts: bytes, room: int = 1) -> tuple[int, bytes]:
    """Bytes used and what was written there, for a command in as many buffers as there are *parts*."""
    done = c.driver.queue(CONTROL).transfer(parts, [room])
    return done.written, done.data[: done.written]


MAC_TABLE = bytes((1, 0))
TABLES = {
    "2^32-1 entries of none": MAC_TABLE + b"\xff" * 4,
    "2^32-1 entries and six bytes": MAC_TABLE + b"\xff" * 4 + bytes(6),
    "a sum that wraps to 0": MAC_TABLE + (0x2AAA_AAAB).to_bytes(4, "little") + bytes(2),  # times 6 is 2 mod 2^32
    "both tables 2^32-1": MAC_TABLE + b"\xff" * 4 + b"\xff" * 4,
    "one entry, the rest missing": MAC_TABLE + (1).to_bytes(4, "little") + bytes(6),
    "a count cut short": MAC_TABLE + bytes(3),
    "an address": bytes((1, 1)) + bytes(6),
    "promiscuous, 2": bytes((0, 0, 2)),
    "VLAN 65535": bytes((2, 0, 255, 255)),
    "RSS with a table of 65536": bytes((4, 1)) + (0).to_bytes(4, "little") + b"\xff\xff" * 40,
    "hashes": bytes((4, 2)) + b"\xff" * 4 + bytes(8) + b"\xff" * 40,
    "class 255": bytes((255, 255)),
}


@pytest.mark.parametrize("what", TABLES)
def test_row_76_row_75_tables_whatever_they_claim_are_refused_and_cost_nothing(what: str) -> None:
    """CVE-2014-0150: 32 bits overflowed when the entries of MAC_TABLE_SET were summed up. CVE-2024-6505: RSS tables.
    What is counted here are the bytes there are; there is no RSS.
    """
    data = TABLES[what]
    with card(text="tap=t0,mq=2") as c:
        for parts in ((data,), tuple(data[i : i + 3] for i in range(0, len(data), 3))):
            assert control(c, *parts) == (1, b"\1")
        assert set_pairs(c, 2) == b"\0"
        assert c.machine.failures == []


def test_row_76_command_of_many_kilobytes_is_refused() -> None:
    with card(text="tap=t0,mq=2", memory=32 << 20) as c:
        assert control(c, MAC_TABLE + b"\xff" * 4, *[bytes(1 << 16)] * 60) == (1, b"\1")
        assert set_pairs(c, 2) == b"\0"


@pytest.mark.parametrize("room", [1, 2, 64, 4096])
def test_row_79_used_length_of_a_command_is_its_acknowledgement(room: int) -> None:
    with card(text="tap=t0,mq=2") as c:
        assert control(c, bytes((4, 0, 2, 0)), room=room) == (1, b"\0")
        assert control(c, bytes((4, 0, 9, 0)), room=room) == (1, b"\1")
