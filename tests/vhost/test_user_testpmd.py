"""virtio-net over DPDK's testpmd and its vhost driver, which sends every frame back."""

import itertools
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.devices import virtio_net
from acrn_dm.memory import MIB
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import INDIRECT_DESC, VERSION_1
from acrn_dm.vhost import user
from tests.vhost.user_rig import Daemon

pytestmark = pytest.mark.process

FRAMES = 1_000_000
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


@pytest.fixture
def testpmd(tmp_path: Path, huge_pages: list[str]) -> Iterator[Daemon]:
    if shutil.which("dpdk-testpmd") is None or (os.cpu_count() or 1) < 2:
        pytest.skip("needs dpdk-testpmd (Debian package dpdk-dev) and two CPUs")
    socket = tmp_path / "net.sock"
    eal = ["-l", "0,1", "--no-pci", "--no-telemetry", *huge_pages, "--vdev", f"net_vhost0,iface={socket}"]
    forward = ["--auto-start", "--forward-mode=io", "--port-topology=loop", "--no-mlockall", "--stats-period=1"]
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


def test_a_million_frames_come_back_with_right_checksums(testpmd: Daemon) -> None:
    with SimMachine(memory=64 * MIB, plugins=[virtio_net, user]) as machine:
        machine.add("virtio-net", f"vhost-user={testpmd.socket}", slot=3)
        driver = machine.driver(3)
        driver.start(VERSION_1 | INDIRECT_DESC)
        length = NET_HEADER + FRAME.size
        rx, tx = Ring(driver, 0, STRIDE, writable=True), Ring(driver, 1, length, writable=False)
        ram = machine.memory.regions[0].mapping
        rx.give(rx.size)
        sent = back = 0
        last = time.monotonic()
        while back < FRAMES:
            count = min(WINDOW - (sent - back), FRAMES - sent, tx.size - (tx.given - tx.seen))
            for number in range(sent, sent + count):
                text = number.to_bytes(8, "little") * 4 + b"--"
                at = tx.buffers + number % tx.size * STRIDE + NET_HEADER
                FRAME.pack_into(ram, at, b"\x02" * 6, b"\x06" * 6, 0xB588, number, zlib.crc32(text), text)
            if count:
                tx.give(count)
                sent += count
            tx.check(tx.take(), 0)
            new = rx.take()
            rx.check(new, length)
            for number in new:
                at = rx.buffers + number % rx.size * STRIDE + NET_HEADER
                _, _, _, told, checksum, text = FRAME.unpack_from(ram, at)
                assert (told, checksum) == (number, zlib.crc32(text)), f"frame {number}"
            if new:
                rx.give(len(new))
                back = new.stop
                last = time.monotonic()
            machine.settle()
            assert time.monotonic() - last < 20, f"{sent - back} frames are missing: {testpmd.log.read_text()}"
        assert machine.failures == []
