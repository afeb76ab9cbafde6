"""A virtio driver at the other end of vfio-user: registers by messages, rings in a file that both have mapped."""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.export.vfio_user.command import make
from acrn_dm.export.vfio_user.function import ExportedFunction
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import RingLayout
from acrn_dm.virtio.pci import modern
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.export.vfio_user.vfio_rig import MSIX, Client, served
from tests.patience import comes_true

BAR = 4
SIZE = 16
RAM, PAGE = 1 << 20, 4096
BASE = 0x10_0000  # where the memory is as a rule
DATA = 0x4_0000  # of the memory: where buffers are
STATUS, QUEUE, VECTOR, ENABLE, NEEDS_RESET = 0x14, 0x16, 0x1A, 0x1C, 64
VERSION_1, ACCESS_PLATFORM = 1 << 32, 1 << 33


@attrs.define(eq=False)
class Driver:
    """The driver of the device behind *client*, with 1 MiB of memory from *base* on; also its ``RingMemory``."""

    client: Client
    base: int = BASE
    fd: int = -1
    ram: mmap.mmap = attrs.field(init=False)
    rings: dict[int, DriverRing] = attrs.field(factory=dict)
    calls: dict[int, int] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.fd < 0:
            self.fd = self.client.memfd(RAM)
        self.ram = mmap.mmap(self.fd, RAM)

    def read(self, gpa: int, length: int) -> bytes:
        return self.ram[gpa - self.base :][:length]

    def write(self, gpa: int, data: bytes) -> None:
        self.ram[gpa - self.base : gpa - self.base + len(data)] = data

    def start(self, queues: Sequence[int] = (0,), *, features: int = 0, size: int = SIZE) -> None:
        """From reset to DRIVER_OK with *queues*, each with a vector of its own."""
        assert not self.client.map(self.base, RAM, self.fd)
        self.negotiate(features)
        for queue in queues:
            self.set_up(queue, size)
        self.client.write(BAR, STATUS, 15, 1)
        assert self.status == 15

    def negotiate(self, features: int = 0) -> None:
        self.client.write(BAR, STATUS, 0, 1)
        assert comes_true(lambda: self.status == 0)
        self.client.write(BAR, STATUS, 3, 1)
        accepted = features | VERSION_1 | ACCESS_PLATFORM
        for word in range(2):
            self.client.write(BAR, 8, word)
            self.client.write(BAR, 12, accepted >> 32 * word & 0xFFFF_FFFF)
        self.client.write(BAR, STATUS, 11, 1)
        assert self.status == 11

    def set_up(self, queue: int, size: int = SIZE) -> None:
        layout = RingLayout.at(self.base + 0x4000 * queue, size)
        self.rings[queue] = DriverRing(self, layout)
        self.calls[queue] = self.client.eventfd(MSIX, queue)
        self.client.write(BAR, QUEUE, queue, 2)
        self.client.write(BAR, 0x18, size, 2)
        self.client.write(BAR, VECTOR, queue, 2)
        for offset, address in ((0x20, layout.desc), (0x28, layout.avail), (0x30, layout.used)):
            self.client.write(BAR, offset, address, 8)
        self.client.write(BAR, ENABLE, 1, 2)

    @property
    def status(self) -> int:
        return self.client.read(BAR, STATUS, 1)

    def send(self, queue: int, out: Sequence[tuple[int, int]] = (), in_: Sequence[tuple[int, int]] = ()) -> None:
        """Buffers, (gpa, length) each, and the kick."""
        self.rings[queue].add_chain(out, in_)
        self.rings[queue].publish()
        self.kick(queue)

    def kick(self, queue: int) -> None:
        self.client.write(BAR, modern.NOTIFY_OFFSET + modern.NOTIFY_MULTIPLIER * queue, queue, 2, posted=True)

    def used(self, queue: int) -> list[tuple[int, int]]:
        """What came back: (head, written)."""
        return list(self.rings[queue].used())

    def done(self, queue: int, count: int = 1) -> list[tuple[int, int]]:
        """As ``used``, when *count* are back."""
        back: list[tuple[int, int]] = []

        def all_back() -> bool:
            back.extend(self.used(queue))
            return len(back) >= count

        assert comes_true(all_back)
        return back


@contextmanager
def virtio(text: str, path: Path, *, tells_writes: bool = False) -> Iterator[ExportedFunction]:
    """The virtio device of *text* at the socket *path*."""
    name = text.partition(",")[0]
    plugins = make_plugin_manager()
    plugins.load_devices([name])
    function = make(text, plugins, program="test").function
    assert isinstance(function, VirtioPci)
    with served(function, path, tells_writes=tells_writes) as exported:
        yield exported


@contextmanager
def driver(path: Path, base: int = BASE) -> Iterator[Driver]:
    """A driver whose client has greeted the server at *path*."""
    client = Client.connect(path)
    client.greet()
    it = Driver(client, base)
    try:
        yield it
    finally:
        client.close()
        it.ram.close()


def size_of(fd: int) -> int:
    return os.fstat(fd).st_size
