"""Boot firmware (OVMF): the image below 4 GiB, the processor at its reset vector.

The image is RAM: the guest may write it, which is how ACRN's OVMF keeps its variables. Where they lie and how big the
image may be are the original's, but for the limit: bigger images than 2 MiB exist by now.

The memory map for ACRN's OVMF lies at 0xEF000: "820" and a NUL, the number of entries as u32, then the entries.
Firmware that is made for QEMU asks the configuration device instead (``devices.platform.fw_cfg``).
"""

import fcntl
import logging
import os
import struct
from pathlib import Path
from uuid import UUID

import attrs

from acrn_dm.boot import e820, layout
from acrn_dm.boot.files import ImageFile, read_image
from acrn_dm.boot.image import BootImage, GuestSetup, Piece
from acrn_dm.boot.registers import BootRegisters, Segment
from acrn_dm.config import Firmware
from acrn_dm.errors import ConfigError
from acrn_dm.memory import GuestMemory, MemoryRange

log = logging.getLogger(__name__)

OPTION = "--ovmf"
END = 1 << 32
STEP = 2 * layout.MIB  # the region's size: huge pages
MAX_IMAGE = 16 * layout.MIB  # code and variables
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


@attrs.frozen(kw_only=True)
class Part:
    """One file of the firmware and where it goes."""

    file: ImageFile
    gpa: int = attrs.field(repr=hex)


def parts(firmware: Firmware) -> tuple[Part, ...]:
    """Read the files; variables come before the code. Raises ConfigError."""
    paths = [path for path in (firmware.variables, firmware.code, firmware.image) if path is not None]
    files = [read_image(path, OPTION, MAX_IMAGE) for path in paths]
    total = sum(len(file.data) for file in files)
    if total > MAX_IMAGE:
        raise files[0].error(f"the firmware has {total} bytes, at most {MAX_IMAGE} are possible")
    placed, gpa = [], END - total
    for file in files:
        placed.append(Part(file=file, gpa=gpa))
        gpa += len(file.data)
    return tuple(placed)


def made_for_qemu(firmware: Firmware) -> bool:
    """Whether the image expects QEMU's machine, not ACRN's. Raises ConfigError."""
    code = parts(firmware)[-1].file.data
    return code[: len(code) - TABLE_END].endswith(TABLE_FOOTER)


def region(firmware: Firmware) -> MemoryRange:
    """The memory below 4 GiB that the image needs. Raises ConfigError."""
    size = -(-(END - parts(firmware)[0].gpa) // STEP) * STEP
    return MemoryRange(gpa=END - size, size=size)


def prepare(firmware: Firmware, setup: GuestSetup) -> BootImage:
    """Lay the image and the memory map out. Raises ConfigError."""
    pieces = [Piece(name="firmware", gpa=part.gpa, data=part.file.data, file=part.file) for part in parts(firmware)]
    entries = e820.memory_map(setup.ranges)
    table = b"820\0" + struct.pack("<I", len(entries)) + e820.pack(entries)
    pieces.append(Piece(name="memory map", gpa=MEMORY_MAP, data=table))
    return BootImage(pieces=tuple(pieces), registers=RESET)


class VariableStore:
    """The file that keeps the guest's variables, with ``w``; else nothing but a lock on the files.

    The locks are the original's: reading for all, writing on what is written back. Another guest with the same file
    is refused.
    """

    def __init__(self, firmware: Firmware) -> None:
        self._fds: list[int] = []
        self._store: tuple[int, int, int] | None = None  # descriptor, gpa, size
        first = parts(firmware)[0]
        size = len(first.file.data)
        if firmware.image is not None:
            size = min(size, VARIABLES_SIZES.get(size, VARIABLES_SIZE))
        try:
            for path in (firmware.variables, firmware.code, firmware.image):
                if path is not None:
                    self._lock(path, first, size, firmware.writeback)
        except BaseException:
            self.close()
            raise

    def save(self, memory: GuestMemory) -> None:
        """Write the variables back, if they are kept."""
        if self._store is None:
            return
        fd, gpa, size = self._store
        try:
            os.pwrite(fd, memory.read(gpa, size), 0)
            os.fsync(fd)
        except OSError as e:
            log.error("the firmware's variables are not saved: %s", e.strerror)

    def close(self) -> None:
        """Unlock. Idempotent."""
        for fd in self._fds:
            os.close(fd)
        self._fds, self._store = [], None

    def _lock(self, path: Path, first: Part, size: int, writeback: bool) -> None:
        keeps = writeback and path == first.file.path
        try:
            fd = os.open(path, (os.O_RDWR if keeps else os.O_RDONLY) | os.O_CLOEXEC)
            self._fds.append(fd)
            fcntl.lockf(fd, (fcntl.LOCK_EX if keeps else fcntl.LOCK_SH) | fcntl.LOCK_NB, size if keeps else 0)
        except BlockingIOError:
            text = "another guest uses this file, and one of them keeps its variables there: give each its own"
            raise ConfigError(text, option=OPTION, value=str(path)) from None
        except OSError as e:
            raise ConfigError(e.strerror or str(e), option=OPTION, value=str(path)) from e
        if keeps:
            self._store = (fd, first.gpa, size)
