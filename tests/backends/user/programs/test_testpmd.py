"""virtio-net over DPDK's testpmd and its vhost driver, which sends every frame back."""

import contextlib
import itertools
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.devices import virtio_net
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.control import ACK_OK
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.devices.virtio_net.request import CTRL_VQ, MQ
from acrn_dm.memory.guest_memory import MIB
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import INDIRECT_DESC, PACKED, VERSION_1
from acrn_dm.virtio.queue import Queue
from tests.backends.queue_kinds import served
from tests.backends.user.user_rig import START_S, Daemon, eventually
from tests.devices.virtio_net.net_rig import FakeTap

pytestmark = pytest.mark.process

FRAMES = 1_000_000
FRAMES_EACH = 100_000
PACKED_FRAMES = 2_000  # several laps of a ring
WINDOW = 512  # frames on their way: fewer than there are receive buffers, so that none is dropped
NET_HEADER = 12
STRIDE = 2048
FRAME = struct.Struct(
    "<6s6sHQI34s"
)  # addresses, EtherType, number, checksum, payload: 60 bytes, the shortest there are
PAGES = 192  # huge pages for testpmd
NR_HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")


@pytest.fixture
def huge_pages() -> Iterator[list[str]]:
    """Reserve huge pages for testpmd; its options."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to reserve huge pages")
    before = NR_HUGEPAGES.read_text()
    NR_HUGEPAGES.write_text(str(int(before) + PAGES))
    try:
        if int(NR_HUGEPAGES.read_text()) < PAGES:
            pytest.skip(f"needs {PAGES} huge pages")
        yield ["--in-memory", "-m", "256"]
    finally:
        NR_HUGEPAGES.write_text(before)


@pytest.fixture(params=[1], ids=["1 pair"])
def testpmd(request: pytest.FixtureRequest, tmp_path: Path, huge_pages: list[str]) -> Iterator[Daemon]:
    """testpmd with so many queue pairs; what comes in on one goes out on the same."""
    pairs = request.param
    if shutil.which("dpdk-testpmd") is None or (os.cpu_count() or 1) < 2:
        pytest.skip("needs dpdk-testpmd (Debian package dpdk-dev) and two CPUs")
    socket = tmp_path / "net.sock"
    eal = [
        "-l",
        "0,1",
        "--no-pci",
        "--no-telemetry",
        *huge_pages,
        "--vdev",
        f"net_vhost0,iface={socket},queues={pairs}",
    ]
    forward = ["--auto-start", "--forward-mode=io", "--port-topology=loop", "--no-mlockall", "--stats-period=1"]
    forward += [f"--rxq={pairs}", f"--txq={pairs}"]
    daemon = Daemon(["dpdk-testpmd", *eal, "--", *forward], socket, tmp_path / "log")
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


@attrs.define(eq=False)
class Ring:
    """A ring whose buffers always take the same way round: entry i of each part belongs to buffer i."""

    driver: VirtioDriver
    index: int
    length: int
    writable: bool
    seen: int = 0  # used index up to here was looked at
    given: int = 0  # available index
    buffers: int = 0

    def __attrs_post_init__(self) -> None:
        ring = self.driver.queue(self.index).ring
        heap, size = self.driver.machine.heap, ring.layout.size
        pages = [heap.take(64 * STRIDE) for _ in range(size // 64)]
        assert all(b - a == 64 * STRIDE for a, b in itertools.pairwise(pages))
        self.buffers = pages[0]
        for i in range(size):
            ring.write_desc(i, self.buffers + i * STRIDE, self.length, 2 if self.writable else 0)
            ring.set_avail_entry(i, i)

    @property
    def size(self) -> int:
        return self.driver.queue(self.index).ring.layout.size

    def give(self, count: int) -> None:
        """Make the next *count* buffers available and kick if wanted."""
        ring = self.driver.queue(self.index).ring
        self.given += count
        ring.set_avail_idx(self.given)
        if not ring.used_flags() & 1:
            self.driver.registers.notify(self.index)

    def take(self) -> range:
        """Numbers of the used entries that are new."""
        new = range(self.seen, self.seen + (self.driver.queue(self.index).ring.used_idx() - self.seen & 0xFFFF))
        self.seen = new.stop
        return new

    def check(self, numbers: range, length: int) -> None:
        """Each entry must be the buffer whose turn it is, with *length* bytes written."""
        ring = self.driver.queue(self.index).ring
        for number in numbers:
            assert ring.used_element(number) == (number % self.size, length)


@attrs.define(eq=False)
class Pair:
    """A queue pair, and the numbers of the frames on their way through it."""

    machine: SimMachine
    rx: Ring
    tx: Ring
    sent: int = 0
    back: int = 0
    lost: int = 0  # before the first that came back

    @classmethod
    def of(cls, driver: VirtioDriver, number: int) -> "Pair":
        rx = Ring(driver, 2 * number, STRIDE, writable=True)
        tx = Ring(driver, 2 * number + 1, NET_HEADER + FRAME.size, writable=False)
        rx.give(rx.size)
        return cls(driver.machine, rx, tx)

    def send(self, limit: int) -> None:
        """Send as many frames as may be under way, up to number *limit*."""
        ram = self.machine.memory.regions[0].mapping
        room = min(WINDOW - (self.sent - self.back), self.tx.size - (self.tx.given - self.tx.seen))
        count = min(room, limit - self.sent)
        for number in range(self.sent, self.sent + count):
            text = number.to_bytes(8, "little") * 4 + b"--"
            at = self.tx.buffers + number % self.tx.size * STRIDE + NET_HEADER
            FRAME.pack_into(ram, at, b"\x02" * 6, b"\x06" * 6, 0xB588, number, zlib.crc32(text), text)
        if count:
            self.tx.give(count)
            self.sent += count

    def begin(self) -> None:
        """Single frames until one comes back: testpmd takes frames before it may send any, and drops them."""
        for _ in range(100):
            self.send(self.sent + 1)
            patience = time.monotonic() + 0.2
            while time.monotonic() < patience:
                self.machine.settle()
                if self.receive():
                    return
        raise AssertionError("no frame comes back")

    def receive(self) -> int:
        """Check what came back; returns how many frames."""
        ram = self.machine.memory.regions[0].mapping
        self.tx.check(self.tx.take(), 0)
        new = self.rx.take()
        self.rx.check(new, NET_HEADER + FRAME.size)
        for number in new:
            at = self.rx.buffers + number % self.rx.size * STRIDE + NET_HEADER
            _, _, _, told, checksum, text = FRAME.unpack_from(ram, at)
            self.lost = self.lost if self.back else told - number
            self.back = number + self.lost + 1
            assert (told, checksum) == (number + self.lost, zlib.crc32(text)), f"frame {number}"
        if new:
            self.rx.give(len(new))
        return len(new)


def round_trip(testpmd: Daemon, pairs: Sequence[Pair], frames: int) -> None:
    """Send *frames* more through each of *pairs* until all are back."""
    for pair in pairs:
        if not pair.back:
            pair.begin()
    limits = [pair.sent + frames for pair in pairs]
    last = time.monotonic()
    while any(pair.back < limit for pair, limit in zip(pairs, limits, strict=True)):
        for pair, limit in zip(pairs, limits, strict=True):
            pair.send(limit)
            if pair.receive():
                last = time.monotonic()
        pairs[0].machine.settle()
        missing = [pair.sent - pair.back for pair in pairs]
        assert time.monotonic() - last < 20, f"{missing} frames are missing: {testpmd.log.read_text()}"


def test_a_million_frames_come_back_with_right_checksums(testpmd: Daemon) -> None:
    with SimMachine(memory=64 * MIB, plugins=[virtio_net, vhost_user]) as machine:
        machine.add("virtio-net", f"vhost-user={testpmd.socket}", slot=3)
        driver = machine.driver(3)
        driver.start(VERSION_1 | INDIRECT_DESC)
        round_trip(testpmd, [Pair.of(driver, 0)], FRAMES)
        assert machine.failures == []


def use_pairs(driver: VirtioDriver, pairs: int) -> None:
    """VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET."""
    control = driver.queue(4)
    control.send([b"\x04\x00", pairs.to_bytes(2, "little")], [1])
    control.kick()
    done: list[bytes] = []

    def look() -> bool:
        done.extend(c.data for c in control.completed())
        return bool(done)

    eventually(driver.machine, look)
    assert done == [ACK_OK]


@pytest.mark.parametrize("testpmd", [2], indirect=True, ids=["2 pairs"])
def test_two_queue_pairs_carry_frames_and_the_driver_decides_how_many(testpmd: Daemon) -> None:
    with SimMachine(memory=64 * MIB, plugins=[virtio_net, vhost_user]) as machine:
        machine.add("virtio-net", f"vhost-user={testpmd.socket},mq=2", slot=3)
        driver = machine.driver(3)
        driver.start(VERSION_1 | INDIRECT_DESC | MQ | CTRL_VQ)
        first, second = Pair.of(driver, 0), Pair.of(driver, 1)
        round_trip(testpmd, [first], 1000)
        assert second.receive() == 0, "nothing comes through a pair that is not in use"
        use_pairs(driver, 2)
        round_trip(testpmd, [first, second], FRAMES_EACH)
        use_pairs(driver, 1)
        second.send(second.sent + 64)
        round_trip(testpmd, [first], 1000)
        at = second.rx.seen
        assert second.rx.take() == range(at, at), "a pair that is out of use receives nothing"
        assert machine.failures == []


# Packed rings, testpmd at either end


def test_card_with_packed_rings_sends_and_receives_by_testpmd(testpmd: Daemon) -> None:
    """testpmd is the back-end: it has RING_PACKED, its driver takes it, and laps go by."""
    with SimMachine(memory=64 * MIB, plugins=[virtio_net, vhost_user]) as machine:
        machine.add("virtio-net", f"vhost-user={testpmd.socket},packed=on", slot=3)
        driver = machine.driver(3)
        assert driver.start(VERSION_1 | INDIRECT_DESC | PACKED) & PACKED
        rx, tx = driver.queue(0), driver.queue(1)
        come: list[bytes] = []
        sent = 0
        for _ in range(64):
            rx.send([], [STRIDE])

        def look() -> bool:
            for one in rx.completed():
                come.append(one.data[NET_HEADER : one.written])
                rx.send([], [STRIDE])
            rx.kick()
            tx.completed()
            return len(come) >= min(sent, 1)

        while len(come) < PACKED_FRAMES:
            if sent < len(come) + 16:
                text = sent.to_bytes(8, "little") * 4 + b"--"
                frame = FRAME.pack(b"\x02" * 6, b"\x06" * 6, 0xB588, sent, zlib.crc32(text), text)
                tx.send([bytes(NET_HEADER), frame], indirect=sent % 3 == 0)
                tx.kick()
                sent += 1
            machine.settle()
            look()
            assert sent < 2 * PACKED_FRAMES or eventually(machine, look) is None
        numbers = [FRAME.unpack(frame)[3] for frame in come]
        assert numbers == sorted(set(numbers)), "frames come once each, in their order"
        assert all(FRAME.unpack(frame)[4] == zlib.crc32(FRAME.unpack(frame)[5]) for frame in come)
        assert machine.failures == []


class NotingCard(NetDevice):
    """A card that remembers what was negotiated."""

    told = 0

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        self.told = features
        super().start(features, queues)

    def plane(self, features: int, queue: Queue) -> None:
        """Its tap is a socket of the test's: frames go by Python."""


@attrs.define(eq=False)
class Cable:
    """The other end of a card's tap, which sends each frame back; on a thread of its own."""

    far: socket.socket
    count: int = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while frame := self.far.recv(4096):
                self.count += 1
                self.far.send(frame)


def test_testpmd_as_driver_uses_packed_rings_of_a_served_card(tmp_path: Path, huge_pages: list[str]) -> None:
    """testpmd is the front-end (virtio_user), and what it sends comes back to it by our card and its cable."""
    if shutil.which("dpdk-testpmd") is None:
        pytest.skip("needs dpdk-testpmd (Debian package dpdk-dev)")
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    context = DeviceContext(bdf=Bdf(slot=0), kind="virtio-net", machine="test")
    card = NotingCard(NetConfig.from_string("tap=t0"), context, lambda _: FakeTap(near.detach(), True))
    cable = Cable(far)
    threading.Thread(target=cable.run, daemon=True).start()
    with far, served(card, tmp_path / "s"):
        vdev = f"net_virtio_user0,path={tmp_path / 's'},queues=1,packed_vq=1"
        eal = ["-l", "0,1", "--no-pci", "--no-telemetry", "--single-file-segments", *huge_pages, "--vdev", vdev]
        forward = ["--auto-start", "--tx-first", "--forward-mode=io", "--port-topology=loop", "--no-mlockall"]
        with (tmp_path / "log").open("wb") as log:
            argv = ["dpdk-testpmd", *eal, "--", *forward, "--stats-period=1"]
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until = time.monotonic() + START_S
            while cable.count < PACKED_FRAMES:
                text = (tmp_path / "log").read_text(errors="replace")
                assert process.poll() is None, text[-2000:]
                assert time.monotonic() < until, text[-2000:]
                time.sleep(0.02)
            assert card.told & PACKED
        finally:
            process.kill()
            process.wait()
