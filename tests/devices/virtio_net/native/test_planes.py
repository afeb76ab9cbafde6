"""The planes of a card beside Python's receiver and transmitter: the same frames, in the same buffers."""

import os
import random
import socket
import struct
from collections.abc import Sequence

import pytest

from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.devices.virtio_net.native._rx import NetRx
from acrn_dm.testing import SimMachine
from acrn_dm.testing.conformance.kinds.net.toeplitz import hash_config
from acrn_dm.virtio.native._plane import Plane
from acrn_dm.virtio.queue import Queue
from tests.devices.virtio_net.net_rig import (
    GUEST_CSUM,
    GUEST_TSO4,
    MRG_RXBUF,
    NEEDS_CSUM,
    PLAIN,
    TCPV4,
    FakeTap,
    card,
    vnet,
)
from tests.devices.virtio_net.test_switches import received

MODERN, CTRL_VQ, CTRL_RX, HASH_REPORT = 1 << 32, 1 << 17, 1 << 18, 1 << 57
OWN = bytes.fromhex("020000000001")
IPV4 = bytes.fromhex("0800 4500 0030 0000 0000 4011 0000 0a000001 0a000002 1234 5678")
ALL_TYPES = 0x3F  # of 5.1.6.4.3.1 but for the extended ones
LARGE = 4096  # longer ones are read where the driver's buffers lie


def to(address: bytes, size: int, fill: int = 0) -> bytes:
    """A UDP packet for *address*, and a body that tells which."""
    return (address + OWN + IPV4).ljust(size, bytes((0x20 + fill % 64,)))


def run(
    native: bool, frames: Sequence[bytes], sizes: Sequence[int], features: int, text: str = "tap=t0", *, packed: bool
) -> list[tuple[int, bytes]]:
    """What the driver finds in its buffers when *frames* come one by one, and *sizes* are posted in two lots."""
    with card(native=native, packed=packed, features=features, text=text, memory=64 << 20) as c:
        assert isinstance(c.device.pairs[0].rx, NetRx) == native
        if features & HASH_REPORT:
            assert c.driver.queue(2).transfer([b"\4\2", hash_config(ALL_TYPES)], [1]).data == b"\0"
        done = []
        for half in (sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]):
            c.post(*half)
            for data in frames:
                done += c.inject(data)
        c.post(*[70_000] * 4)
        return [(d.written, d.data[: d.written]) for d in done + c.rx.completed()]


@pytest.mark.parametrize("seed", [0, 1, 2, *range(4, 13)])
def test_any_frames_in_any_buffers_arrive_as_by_the_reference(seed: int) -> None:
    rng = random.Random(seed)
    features = MODERN | GUEST_CSUM | GUEST_TSO4 | (MRG_RXBUF if seed % 3 else 0)
    lengths = [13, 14, 60, 1514, LARGE - 30, LARGE + 1, 9000, 9001, 30_000, 65_553, 65_554]
    frames = []
    for number in range(rng.randint(4, 12)):
        header = rng.choice(
            [PLAIN, vnet(NEEDS_CSUM, TCPV4, 54, 1448, 34, 16) + bytes(2), vnet(NEEDS_CSUM, 4) + bytes(2)]
        )
        frames.append(header + to(OWN, rng.choice(lengths), number)[: rng.choice([13, 1 << 20, 1 << 20, 1 << 20])])
    sizes = [rng.choice([30, 64, 300, 1526, 2048, 4096, 20_000, 65_565, 70_000]) for _ in range(rng.randint(1, 60))]
    packed = bool(seed & 1)
    found = run(True, frames, sizes, features, packed=packed)
    assert found
    assert found == run(False, frames, sizes, features, packed=packed)


@pytest.mark.parametrize("sizes", [(9100,), (2048,) * 8, (30,) + (500,) * 25, (70_000,)], ids=str)
def test_second_large_frame_is_read_where_the_buffers_lie_and_is_whole(sizes: tuple[int, ...]) -> None:
    bodies = [to(OWN, size, number) for number, size in enumerate((9000, 9000, 5000, 9050, 60, 9000))]
    with card(features=MODERN | MRG_RXBUF, memory=64 << 20) as c:
        for body in bodies:
            c.post(*sizes)
            c.peer.send(PLAIN + body)
            c.machine.settle()
            assert received(c, 0) == [body]


def test_frame_that_outgrows_what_was_named_waits_whole() -> None:
    """Its beginning is in buffers that go back to the driver's ring, the rest here, until there are more of them."""
    first, second = to(OWN, 5000, 1), to(OWN, 60_000, 2)
    with card(features=MODERN | MRG_RXBUF, memory=64 << 20) as c:
        c.post(5100)
        assert [d.written for d in c.inject(PLAIN + first)] == [5012]
        c.post(*[6000] * 3)
        assert c.inject(PLAIN + second) == []
        c.post(*[6000] * 9)
        assert received(c, 0) == [second]


def test_large_frame_for_another_station_leaves_the_buffers_to_the_next() -> None:
    with card(features=MODERN | MRG_RXBUF | CTRL_VQ | CTRL_RX, memory=64 << 20) as c:
        assert c.driver.queue(2).transfer([b"\0\0", b"\0"], [1]).data == b"\0"
        own = c.driver.read_config(0, 6)
        c.post(9000, 9000, 9000)
        for _ in range(2):
            assert c.inject(PLAIN + to(b"\2" * 6, 8000)) == []
        c.peer.send(PLAIN + to(own, 8000, 7))
        c.machine.settle()
        assert received(c, 0) == [to(own, 8000, 7)]


def test_frame_takes_more_buffers_than_a_batch_has() -> None:
    body = to(OWN, 60_000)
    with card(features=MODERN | MRG_RXBUF, memory=64 << 20) as c:
        for _ in range(2):
            c.post(*[64] * 940)
            c.peer.send(PLAIN + body)
            c.machine.settle()
            assert received(c, 0) == [body]


@pytest.mark.parametrize("sizes", [(65_600,) * 6, (2048,) * 60])
def test_hash_report_of_a_frame_of_any_length_is_the_references(sizes: tuple[int, ...]) -> None:
    features = MODERN | MRG_RXBUF | CTRL_VQ | HASH_REPORT
    frames = [
        bytes(20) + (OWN + OWN + IPV4[:-2] + bytes((0, number))).ljust(size, b".")
        for number, size in enumerate((60, 9000, 9000, 60))
    ]
    found = run(True, frames, sizes, features, "tap=t0,hash=on", packed=False)
    assert len({data[12:16] for _, data in found if data[16:18] != b"\0\0"}) >= len(frames)
    assert found == run(False, frames, sizes, features, "tap=t0,hash=on", packed=False)


def test_frame_that_the_host_refuses_is_dropped_and_the_next_is_sent() -> None:
    with card() as c:
        c.peer.close()
        assert c.tx.transfer([PLAIN + to(OWN, 60)]).written == 0
        assert c.device.pairs[0].tx is not None
        assert c.device.pairs[0].tx.dropped == 1
        assert c.driver.read_config(6, 2) == b"\1\0"


@pytest.mark.parametrize("queue", [0, 1])
def test_interface_that_vanishes_takes_the_link_down_once(queue: int) -> None:
    """A descriptor of /dev/net/tun that is attached to nothing answers as one whose interface was deleted."""

    def nowhere(name: str) -> PacketFile:
        try:
            return PacketFile(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), True)
        except OSError as e:
            pytest.skip(f"needs /dev/net/tun: {e}")

    def create(context: DeviceContext) -> NetDevice:
        return NetDevice(NetConfig.from_string("tap=t0"), context, nowhere)

    with SimMachine() as machine:
        machine.add(create, slot=3)
        driver = machine.driver(3)
        driver.start()
        before = driver.config_interrupts
        assert driver.read_config(6, 2) == b"\1\0"
        for _ in range(3):
            if queue:
                assert driver.queue(1).transfer([PLAIN + to(OWN, 60)]).written == 0
            else:
                driver.queue(0).send([], [2048])
                driver.queue(0).kick(force=True)
                machine.settle()
        assert driver.read_config(6, 2) == b"\0\0"
        assert driver.config_interrupts == before + 1
        assert machine.failures == []


@pytest.mark.parametrize("links", [(), (False,), (False, True)], ids=["up", "cut", "plugged"])
def test_loop_that_runs_while_a_card_starts_leaves_the_interface_to_its_planes(links: Sequence[bool]) -> None:
    """A loop with a thread may have its turn between the device's start and that of the first plane."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    tap = FakeTap(near.detach(), True)

    class Hurried(NetDevice):
        def plane(self, features: int, queue: Queue) -> Plane | None:
            if queue.index == 0:
                for up in links:
                    self.set_link(up)
                far.send(PLAIN + to(OWN, 60, 1))
                queue.loop.step()
            return super().plane(features, queue)

    with far, SimMachine() as machine:
        device = machine.add(
            lambda context: Hurried(NetConfig.from_string("tap=t0"), context, lambda name: tap), slot=3
        )
        driver = machine.driver(3)
        driver.start()
        machine.settle()
        if links:
            device.device.set_link(True)
        for _ in range(2):
            driver.queue(0).send([], [2048])
        driver.queue(0).kick()
        far.send(PLAIN + to(OWN, 60, 2))
        machine.settle()
        arrived = [done.data[12 : done.written] for done in driver.queue(0).completed()]
        assert arrived == [to(OWN, 60, number) for number in ((2,) if links[-1:] == (False,) else (1, 2))]
        assert machine.failures == []


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_chains_that_were_taken_and_not_used_go_back_for_who_serves_the_queue_next(
    packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, left = list[Queue](), list[int]()
    start, stop = NetDevice.start, NetDevice.stop

    def started(self: NetDevice, features: int, queues: Sequence[Queue]) -> None:
        served[:] = queues
        start(self, features, queues)

    def stopped(self: NetDevice) -> None:
        left.extend(queue.ring.in_flight for queue in served)
        stop(self)

    monkeypatch.setattr(NetDevice, "start", started)
    monkeypatch.setattr(NetDevice, "stop", stopped)
    with card(memory=32 << 20, packed=packed) as c:
        c.post(*[2048] * 8)
        assert len(c.inject(PLAIN + to(OWN, 60, 1))) == 1
        assert served[0].ring.in_flight == 7
        left.clear()
        c.machine.serve_in_python()
        assert left == [0] * len(served), "no plane keeps one when it has stopped"
        assert not isinstance(c.device.pairs[0].rx, NetRx)
        done = c.inject(*[PLAIN + to(OWN, 60, number) for number in range(7)])
        assert [struct.unpack_from("<H", d.data, 10)[0] for d in done] == [1] * 7


def test_what_was_sent_and_received_is_counted() -> None:
    with card() as c:
        c.post(*[2048] * 3)
        c.inject(PLAIN + to(OWN, 60), PLAIN + to(OWN, 100))
        c.tx.transfer([PLAIN + to(OWN, 200)])
        rx, tx = c.machine.queue_counts(3, 0), c.machine.queue_counts(3, 1)
        assert (rx.chains, rx.returned, rx.bytes_in) == (2, 2, 72 + 112)
        assert (tx.chains, tx.returned, tx.bytes_out) == (1, 1, 212)
