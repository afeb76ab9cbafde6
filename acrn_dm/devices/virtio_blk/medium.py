"""Finds out what an image is, and opens it: sizes, read-only, O_DIRECT, the lock of a range."""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from acrn_dm.devices.virtio_blk.backend import Image
from acrn_dm.devices.virtio_blk.backend_direct import DirectImage, probe_alignment
from acrn_dm.devices.virtio_blk.config import SECTOR, WHAT, BlkConfig, Range, SectorSize
from acrn_dm.errors import ConfigError, HostError

BLKPBSZGET = 0x127B  # linux/fs.h: physical block size
FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, len, pid


def problem(config: BlkConfig) -> str | None:
    """Why the image can't be used, as one line; opens nothing."""
    path = config.path
    if path is None:
        return None
    if not path.exists():
        return f"image {path} does not exist"
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
        return f"image {path} is neither a regular file nor a block device"
    if not os.access(path, os.R_OK | (0 if config.ro else os.W_OK)):
        return f"image {path} is not {'readable' if config.ro else 'writable; give the option ro for a read-only disk'}"
    return None


def open_image(config: BlkConfig) -> Image:
    """Open the image of *config*; unlike the original never falls back to read-only. Raises ConfigError, HostError."""
    path = config.path
    assert path is not None
    if why := problem(config):
        raise ConfigError(why, option=WHAT)
    mode = (os.O_RDONLY if config.ro else os.O_RDWR) | os.O_CLOEXEC
    try:
        fd = os.open(path, mode | (os.O_DIRECT if config.nocache else 0))
    except OSError as e:
        hint = "nocache needs a file system with O_DIRECT" if config.nocache and e.errno == errno.EINVAL else None
        raise HostError.from_os(f"opening image {path}", e, hint) from e
    try:
        image = _examine(fd, path, config)
        return _bypass_cache(image, mode) if config.nocache else image
    except OSError as e:
        os.close(fd)
        raise HostError.from_os(f"examining image {path}", e) from e
    except BaseException:
        os.close(fd)
        raise


def _bypass_cache(image: Image, mode: int) -> DirectImage:
    return DirectImage(
        fd=image.fd,
        size=image.size,
        sectors=image.sectors,
        is_block_device=image.is_block_device,
        start=image.start,
        alignment=probe_alignment(image.fd, image.size),
        buffered_fd=os.open(f"/proc/self/fd/{image.fd}", mode),  # the same file, whatever its path means by now
    )


def _examine(fd: int, path: Path, config: BlkConfig) -> Image:
    """Find size and block sizes of *fd* and apply ``sectorsize`` and ``range``."""
    status = os.fstat(fd)
    is_block_device = stat.S_ISBLK(status.st_mode)
    size = os.lseek(fd, 0, os.SEEK_END)
    physical = _block_size(fd, BLKPBSZGET) if is_block_device else status.st_blksize
    sectors = config.sectorsize or SectorSize(logical=SECTOR, physical=_power_of_two(physical))
    if size < SECTOR or size % sectors.logical:
        text = f"image {path} has {size} bytes, which is not a multiple of {sectors.logical}"
        raise ConfigError(text if size else f"image {path} is empty", option=WHAT)
    start = 0
    if config.range is not None:
        start, size = _visible_part(config.range, sectors.logical, size, path)
        _lock(fd, start, size, path, exclusive=not config.ro)
    return Image(fd=fd, size=size, sectors=sectors, is_block_device=is_block_device, start=start)


def _visible_part(part: Range, block: int, size: int, path: Path) -> tuple[int, int]:
    start, length = part.start * block, part.size * block
    if start + length > size:
        text = f"ends behind image {path}, which has {size // block} blocks of {block} bytes"
        raise ConfigError(text, option=f"{WHAT} range", value=f"{part.start}/{part.size}")
    return start, length


def _lock(fd: int, start: int, length: int, path: Path, *, exclusive: bool) -> None:
    """Lock the range for as long as *fd* is open, against other ranges of the same image, of this process too."""
    lock = FLOCK.pack(fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    except OSError as e:
        hint = "another disk uses an overlapping range" if e.errno in (errno.EAGAIN, errno.EACCES) else None
        raise HostError.from_os(f"locking the range of image {path}", e, hint) from e


def _block_size(fd: int, request: int) -> int:
    with contextlib.suppress(OSError):
        return int(struct.unpack("I", fcntl.ioctl(fd, request, bytes(4)))[0])
    return SECTOR


def _power_of_two(size: int) -> int:
    """The largest power of two up to *size*, from 512 to 64 KiB."""
    return min(max(1 << (size.bit_length() - 1), SECTOR), 1 << 16) if size > 0 else SECTOR
