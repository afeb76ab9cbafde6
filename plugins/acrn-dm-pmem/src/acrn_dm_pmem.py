"""virtio-pmem: a file of the host as memory of the guest (virtio 5.19). One queue, for one request: flush."""

import fcntl
import logging
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

import attrs

from acrn_dm import (
    ByteSize,
    Chain,
    Claim,
    DeviceContext,
    DeviceType,
    GuestError,
    HostError,
    Queue,
    Resources,
    VirtioDevice,
    hookimpl,
    option,
    path_key,
)

log = logging.getLogger(__name__)

UNIT = 2 << 20  # guests map persistent memory in pages of 2 MiB
CONFIG, REQUEST, RESPONSE = struct.Struct("<QQ"), struct.Struct("<I"), struct.Struct("<i")
FLUSH = 0
BATCH = 64  # requests that one flush answers


def _whole(instance: object, attribute: "attrs.Attribute[int | None]", value: int | None) -> None:
    if value is not None and (value <= 0 or value % UNIT):
        raise ValueError(f"size {value}: expected a multiple of {UNIT} ({UNIT >> 20}M)")


@attrs.frozen(kw_only=True)
class PmemConfig:
    """Options."""

    file: Path = option(help="The file, a multiple of 2 MiB long.")
    size: ByteSize | None = option(default=None, validator=_whole, help="Make the file, or make it longer.")


class PmemDevice(VirtioDevice):
    """The file's place in the guest, and its flushes, on a loop of their own: the disk may take its time."""

    device_id = 27
    pci_class = 0x058000  # memory controller, other

    def __init__(self, config: PmemConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config
        self._fd = -1
        self._gpa = self._size = 0

    @property
    def config_size(self) -> int:
        """5.19.4: start, size."""
        return CONFIG.size

    @property
    def backend_text(self) -> str:
        """The file."""
        return str(self.config.file)

    def loop_name(self, queue: int) -> str:
        """Its own."""
        return self.name

    def claims(self) -> Sequence[Claim]:
        """The file."""
        return [Claim(key=path_key(self.config.file), what=str(self.config.file))]

    def check(self) -> list[str]:
        """Whether the file is there, or can be made, and is one."""
        file = self.config.file
        if not file.exists():
            made = self.config.size is not None and os.access(file.parent, os.W_OK | os.X_OK)
            hint = "its folder can't be written" if self.config.size else "size=SIZE makes it"
            return [] if made else [f"{self.name}: file {file} is not there; {hint}"]
        ok = file.is_file() and os.access(file, os.R_OK | os.W_OK)
        return [] if ok else [f"{self.name}: file {file} is no plain file that can be read and written"]

    def realize(self, resources: Resources) -> None:
        """Open the file and put it into the guest's address space. Raises HostError."""
        try:
            self._open()
        except OSError as e:
            raise HostError.from_os(f"opening {self.config.file}", e) from e
        self._gpa = resources.add_memory(self._fd, self._size)

    def read_config(self, offset: int, size: int) -> bytes:
        """Where it is."""
        return CONFIG.pack(self._gpa, self._size)[offset : offset + size]

    def handle_queue(self, queue: Queue) -> None:
        """Flush once for all who wait. Raises GuestError."""
        while chains := queue.pop_batch(BATCH):
            requests = [chain.read(REQUEST.size) for chain in chains]
            wanted = [request == REQUEST.pack(FLUSH) for request in requests]
            done = not any(wanted) or self._flush()
            for chain, flush in zip(chains, wanted, strict=True):
                _answer(chain, 0 if flush and done else -1)
                queue.push(chain)
            queue.flush()

    def close(self) -> None:
        """What the guest wrote last goes to the disk as the kernel likes, as with any file; the lock ends."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> None:
        """Raises OSError and HostError."""
        self._fd = os.open(self.config.file, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if self.config.size else 0), 0o644)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise HostError(f"{self.config.file} is no plain file")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise HostError.from_os(f"locking {self.config.file}", e, "another machine has it") from e
        self._size = max(status.st_size, self.config.size or 0)
        if self._size % UNIT or not self._size:
            raise HostError(f"{self.config.file} has {self._size} bytes, which are no multiple of {UNIT}")
        if self._size > status.st_size:
            os.ftruncate(self._fd, self._size)

    def _flush(self) -> bool:
        try:
            os.fdatasync(self._fd)  # of pages that were written through a mapping, too
        except OSError as e:
            log.warning("%s: flushing %s: %s", self.name, self.config.file, e.strerror)
            return False
        return True


def _answer(chain: Chain, result: int) -> None:
    if chain.writable_bytes < RESPONSE.size:
        raise GuestError(f"{chain.writable_bytes} bytes of room for a response")
    chain.write(RESPONSE.pack(result))


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``virtio-pmem``."""
    summary = "persistent memory: a file of the host in the guest's address space"
    return [DeviceType(name="virtio-pmem", summary=summary, config=PmemConfig, create=PmemDevice)]
