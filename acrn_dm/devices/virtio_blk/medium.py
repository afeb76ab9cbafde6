"""The medium of a disk: what an image is, and how it is opened: sizes, read-only, O_DIRECT, locks."""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from acrn_dm.base.errors import AcrnDmError, ConfigError, HostError
from acrn_dm.base.files.claims import Claim, path_key, socket_claim
from acrn_dm.base.files.file_locks import Access, holder, is_free, soon, take
from acrn_dm.devices.virtio_blk.config import SECTOR, WHAT, BlkConfig, Range, SectorSize
from acrn_dm.devices.virtio_blk.image import containers, node
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.image.backend_direct import DirectImage, probe_alignment

BLKPBSZGET = 0x127B  # linux/fs.h: physical block size
LINKED = "mounted, or part of something that is"


def problem(config: BlkConfig) -> str | None:
    """Why the image can't be used, as one line; looks at it as ``open_image`` does, and takes nothing."""
    if config.path is None:
        return None
    try:
        fd = _open(config, os.O_RDONLY)
        try:
            _examine(fd, config.path, config)
            return None if soon(lambda: is_free(fd, access(config)), fd) else _in_use(fd, config.path)
        finally:
            os.close(fd)
    except AcrnDmError as e:
        return str(e.args[0]) if isinstance(e, ConfigError) else str(e)
    except OSError as e:
        return str(HostError.from_os(f"examining image {config.path}", e))


def remarks(config: BlkConfig) -> list[str]:
    """What the user may not have meant, though it can be done; one line each."""
    if config.path is None or config.range is not None:
        return []
    with contextlib.suppress(OSError):  # that is a problem, and told as one
        return [line for line in (containers.remark(config.path),) if line is not None]
    return []


def open_image(config: BlkConfig) -> Image:
    """Open and lock the image of *config*; unlike the original never falls back to read-only. Raises ConfigError,
    HostError.
    """
    path = config.path
    assert path is not None
    mode = os.O_RDONLY if config.ro else os.O_RDWR
    fd = _open(config, mode)
    try:
        image = _examine(fd, path, config)
        if not soon(lambda: take(fd, access(config)), fd):
            raise ConfigError(_in_use(fd, path), option=WHAT)
        return _bypass_cache(image, mode | os.O_CLOEXEC) if config.nocache else image
    except OSError as e:
        os.close(fd)
        raise HostError.from_os(f"examining image {path}", e) from e
    except BaseException:
        os.close(fd)
        raise


def access(config: BlkConfig) -> Access:
    """How the image is used, of a ``range`` that part only."""
    part, block = config.range, SECTOR if config.sectorsize is None else config.sectorsize.logical
    extent = None if part is None else (part.start * block, part.size * block)
    return Access(writes=not config.ro, shares=config.share, part=extent)


def claims(config: BlkConfig) -> list[Claim]:
    """The image, whatever it is called, or the socket: its process serves one client."""
    if config.vhost_user is not None:
        return [socket_claim(config.vhost_user)]
    if config.path is None:
        return []
    hint = "give ro to both, or share=on to those that keep their writes apart by themselves"
    return [Claim(key=path_key(config.path), what=f"image {config.path}", access=access(config), hint=hint)]


def _open(config: BlkConfig, mode: int) -> int:
    """Open the image. Raises ConfigError where the user can help it, else HostError."""
    path = config.path
    assert path is not None
    try:
        kind = path.stat().st_mode
    except OSError as e:
        text = "does not exist" if e.errno == errno.ENOENT else f"can't be looked at: {e.strerror}"
        raise ConfigError(f"image {path} {text}", option=WHAT) from e
    if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
        raise ConfigError(f"image {path} is neither a regular file nor a block device", option=WHAT)
    if not os.access(path, os.R_OK | (0 if config.ro else os.W_OK)):
        text = "readable" if config.ro else "writable; give the option ro for a read-only disk"
        raise ConfigError(f"image {path} is not {text}", option=WHAT)
    # Of a block device O_EXCL asks the kernel, which has mounted it perhaps, and tells it that it is used.
    alone = stat.S_ISBLK(kind) and not config.ro and not config.share and config.range is None
    flags = mode | os.O_CLOEXEC | (os.O_DIRECT if config.nocache else 0) | (os.O_EXCL if alone else 0)
    try:
        return os.open(path, flags)
    except OSError as e:
        if alone and e.errno == errno.EBUSY:
            raise ConfigError(_busy(path), option=WHAT) from e
        hint = "nocache needs a file system with O_DIRECT" if config.nocache and e.errno == errno.EINVAL else None
        raise HostError.from_os(f"opening image {path}", e, hint) from e


def _busy(path: Path) -> str:
    """Why the kernel lets nobody open block device *path* for himself: another machine has it, or the host."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return f"image {path} is in use by the host: {LINKED}" if holder(fd) is None else _in_use(fd, path)
    finally:
        os.close(fd)


def _in_use(fd: int, path: Path) -> str:
    who = holder(fd)
    text = f"image {path} is in use" + (f" by {who}" if who is not None else "")
    return f"{text}; ro on both sides, or share=on where something keeps the writes apart, allows that"


def _bypass_cache(image: Image, mode: int) -> DirectImage:
    return DirectImage(
        fd=image.fd,
        size=image.size,
        sectors=image.sectors,
        is_block_device=image.is_block_device,
        start=image.start,
        node=image.node,
        alignment=probe_alignment(image.fd, image.size),
        buffered_fd=os.open(f"/proc/self/fd/{image.fd}", mode),  # the same file, whatever its path means by now
    )


def _examine(fd: int, path: Path, config: BlkConfig) -> Image:
    """Find size and block sizes of *fd* and apply ``sectorsize`` and ``range``."""
    status = os.fstat(fd)
    is_block_device = stat.S_ISBLK(status.st_mode)
    disk = node.node_of(fd)
    _require_order(disk, path, config)
    if config.secure_erase and (disk is None or node.can_erase(fd) is False):
        raise ConfigError(_no_erase(path), option=WHAT)
    size = os.lseek(fd, 0, os.SEEK_END)
    physical = _block_size(fd, BLKPBSZGET) if is_block_device else status.st_blksize
    sectors = config.sectorsize or SectorSize(logical=SECTOR, physical=_power_of_two(physical))
    if size < SECTOR or size % sectors.logical:
        text = f"image {path} has {size} bytes, which is not a multiple of {sectors.logical}"
        advice = "" if is_block_device else f"; {_how_to_grow(path, sectors.logical)}"
        raise ConfigError(text + advice if size else f"image {path} is empty", option=WHAT)
    start = 0
    if config.range is not None:
        start, size = _visible_part(config.range, sectors.logical, size, path)
    return Image(fd=fd, size=size, sectors=sectors, is_block_device=is_block_device, start=start, node=disk)


def _require_order(disk: node.BlockNode | None, path: Path, config: BlkConfig) -> None:
    """Refuse a disk on which not every write can be done."""
    if disk is not None and disk.zoned == "host-managed" and not config.ro:
        text = f"image {path} is a host-managed zoned disk, which takes writes in the order of its zones only"
        raise ConfigError(f"{text}; allowed are the option ro, or a device of dm-zoned on it", option=WHAT)


def _no_erase(path: Path) -> str:
    text = f"image {path} can't do what secure_erase promises"
    return f"{text}: only block devices that erase every copy can (BLKSECDISCARD of Linux 5.19 or later), no files"


def _how_to_grow(path: Path, block: int) -> str:
    found = containers.look(path)
    if found is not None:
        return f"it looks like {found.text}: {containers.what_to_do(found, path)}"
    return f"to extend it: truncate -s %{block} {path}"


def _visible_part(part: Range, block: int, size: int, path: Path) -> tuple[int, int]:
    start, length = part.start * block, part.size * block
    if start + length > size:
        text = f"range {part.start}/{part.size} ends behind image {path}"
        raise ConfigError(f"{text}, which has {size // block} blocks of {block} bytes", option=WHAT)
    return start, length


def _block_size(fd: int, request: int) -> int:
    with contextlib.suppress(OSError):
        return int(struct.unpack("I", fcntl.ioctl(fd, request, bytes(4)))[0])
    return SECTOR


def _power_of_two(size: int) -> int:
    """The largest power of two up to *size*, from 512 to 64 KiB."""
    return min(max(1 << (size.bit_length() - 1), SECTOR), 1 << 16) if size > 0 else SECTOR
