"""Boot firmware (OVMF): the image below 4 GiB, the processor at its reset vector.

The image is RAM: the guest may write it, which is how ACRN's OVMF keeps its variables. Where they lie and how big the
image may be are the original's, but for the limit: bigger images than 2 MiB exist by now.

The memory map for ACRN's OVMF lies at 0xEF000: "820" and a NUL, the number of entries as u32, then the entries.
Firmware that is made for QEMU asks the configuration device instead (``devices.platform.fw_cfg``).
"""

import contextlib
import logging
import os
import struct
from pathlib import Path
from uuid import UUID

import attrs

from acrn_dm.base import address_map as layout
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.files.claims import Claim, path_key
from acrn_dm.base.files.file_locks import content_is_free, holder, take_content
from acrn_dm.base.records import frozen
from acrn_dm.boot import e820
from acrn_dm.boot.files import ImageFile, KeptFiles
from acrn_dm.boot.image import BootImage, GuestSetup, Piece
from acrn_dm.contract.config import Firmware
from acrn_dm.contract.registers import BootRegisters, Segment
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange

log = logging.getLogger(__name__)

OPTION = "--ovmf"
END = 1 << 32
STEP = 2 * layout.MIB  # the region's size: huge pages
MAX_IMAGE = 16 * layout.MIB  # code and variables
PAGE = 4096
VECTOR = 16  # bytes from the reset vector to 4 GiB
MEMORY_MAP = 0xE_F000
VARIABLES_SIZES = {4 * layout.MIB: 0x8_4000}  # of an image in one piece, by its size; else
VARIABLES_SIZE = 128 * layout.KIB

# Firmware made for QEMU tells QEMU about itself in a table that ends 32 bytes before the image's end, in front of the
# reset vector, with this identifier (EDK II, OvmfPkg/ResetVector: "GUIDed structure"). ACRN's builds have none.
TABLE_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
TABLE_END = 32

RESET = (
    BootRegisters(  # as a processor is after reset (Intel SDM volume 3, table 10-1), in the last 16 bytes below 4 GiB
        rip=0xFFF0,
        code=Segment(selector=0xF000, base=0xFFFF_0000, limit=0xFFFF, access=0x9F),
        data=Segment(selector=0, limit=0xFFFF, access=0x93),
        cr0=0x30,
        gdt_limit=0xFFFF,
    )
)


@frozen(kw_only=True)
class Part:
    """One file of the firmware and where it goes."""

    file: ImageFile
    gpa: int = attrs.field(repr=hex)


def paths(firmware: Firmware) -> list[Path]:
    """The files in the order in which they lie in memory."""
    return [path for path in (firmware.variables, firmware.code, firmware.image) if path is not None]


def parts(firmware: Firmware, files: KeptFiles) -> tuple[Part, ...]:
    """Read the files; variables come before the code. Raises ConfigError."""
    images = [files.read(path, OPTION, MAX_IMAGE) for path in paths(firmware)]
    total = sum(len(image.data) for image in images)
    if total > MAX_IMAGE:
        raise images[0].error(f"the firmware has {total} bytes, at most {MAX_IMAGE} are possible")
    for image in images:
        if len(image.data) % PAGE:
            raise image.error(f"no firmware image: {len(image.data)} bytes, which is not a multiple of {PAGE}")
    if set(images[-1].data[-VECTOR:]) in ({0}, {0xFF}):  # erased flash is all ones
        raise images[-1].error(f"no firmware image: its last {VECTOR} bytes, where the processor starts, are empty")
    placed, gpa = [], END - total
    for file in images:
        placed.append(Part(file=file, gpa=gpa))
        gpa += len(file.data)
    return tuple(placed)


def made_for_qemu(firmware: Firmware, files: KeptFiles) -> bool:
    """Whether the image expects QEMU's machine, not ACRN's. Raises ConfigError."""
    code = parts(firmware, files)[-1].file.data
    return code[: len(code) - TABLE_END].endswith(TABLE_FOOTER)


def region(firmware: Firmware, files: KeptFiles) -> MemoryRange:
    """The memory below 4 GiB that the image needs. Raises ConfigError."""
    size = -(-(END - parts(firmware, files)[0].gpa) // STEP) * STEP
    return MemoryRange(gpa=END - size, size=size)


def prepare(firmware: Firmware, setup: GuestSetup, files: KeptFiles) -> BootImage:
    """Lay the image and the memory map out. Raises ConfigError."""
    placed = parts(firmware, files)
    pieces = [Piece(name="firmware", gpa=part.gpa, data=part.file.data, file=part.file) for part in placed]
    entries = e820.memory_map(setup.ranges)
    table = b"820\0" + struct.pack("<I", len(entries)) + e820.pack(entries)
    pieces.append(Piece(name="memory map", gpa=MEMORY_MAP, data=table))
    return BootImage(pieces=tuple(pieces), registers=RESET)


class VariableStore:
    """The file that keeps the guest's variables, with ``w``; else nothing but a lock on the files.

    Another guest with the same file is refused where one of them keeps its variables there, as by the original.
    """

    def __init__(self, firmware: Firmware, files: KeptFiles) -> None:
        """Lock the files, and read what was not locked when it was read before. Raises ConfigError."""
        self._files = files
        self._fds: dict[Path, int] = {}
        self._store: Part | None = None
        self._size = 0  # of the variables
        try:
            for path in paths(firmware):
                fd = self._fds[path] = _open(path, writes=keeps(firmware, path))
                if not take_content(fd, writes=keeps(firmware, path)):
                    raise _in_use(path, fd)
                files.read_again(path, OPTION, MAX_IMAGE, fd)
            if firmware.writeback:
                self._store = parts(firmware, files)[0]
                self._size = variables_size(firmware, self._store.file)
        except BaseException:
            self.close()
            raise

    def save(self, memory: GuestMemory) -> None:
        """Write the variables back, if they are kept."""
        if self._store is None:
            return
        path, data = self._store.file.path, memory.read(self._store.gpa, self._size)
        self._files.replace(path, data)
        try:
            os.pwrite(self._fds[path], data, 0)
            os.fsync(self._fds[path])
        except OSError as e:
            log.error("the firmware's variables are not saved: %s", e.strerror)

    def close(self) -> None:
        """Unlock. Idempotent."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds, self._store = {}, None


def check(firmware: Firmware) -> list[str]:
    """What would keep ``VariableStore`` from opening the files, one line each; takes nothing."""
    problems = []
    for path in paths(firmware):
        writes = keeps(firmware, path)
        try:
            fd = _open(path, writes=False)
            with contextlib.ExitStack() as stack:
                stack.callback(os.close, fd)
                if writes and not os.access(path, os.W_OK):
                    raise ConfigError(
                        "not writable, and w keeps the guest's variables in it", option=OPTION, value=path
                    )
                if not content_is_free(fd, writes=writes):
                    raise _in_use(path, fd)
        except ConfigError as e:
            problems.append(str(e))
    return problems


def claims(firmware: Firmware) -> list[Claim]:
    """The file that is written back."""
    return [Claim(key=path_key(p), what=f"file {p}") for p in paths(firmware) if keeps(firmware, p)]


def keeps(firmware: Firmware, path: Path) -> bool:
    """Whether the guest's variables are written back to *path*."""
    return firmware.writeback and path == paths(firmware)[0]


def variables_size(firmware: Firmware, first: ImageFile) -> int:
    """Bytes of variables at the start of the first file."""
    size = len(first.data)
    return size if firmware.image is None else min(size, VARIABLES_SIZES.get(size, VARIABLES_SIZE))


def _open(path: Path, *, writes: bool) -> int:
    try:
        return os.open(path, (os.O_RDWR if writes else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise ConfigError(e.strerror or str(e), option=OPTION, value=str(path)) from e


def _in_use(path: Path, fd: int) -> ConfigError:
    who = holder(fd) or "another guest"
    text = f"in use by {who}, and one of you keeps its variables there: give each its own"
    return ConfigError(text, option=OPTION, value=str(path))
