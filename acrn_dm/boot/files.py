"""The user's image files, read once: what is checked is what is loaded, at the start and after each reset of the guest,
whatever happens to the files meanwhile. QEMU keeps its copies for the same reason.
"""

import os
import stat
import struct
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import define, frozen


@frozen(kw_only=True, eq=False)
class ImageFile:
    """Contents of the file that *option* named."""

    option: str
    path: Path
    data: bytes = attrs.field(repr=False)

    def error(self, problem: str) -> ConfigError:
        """Return the error that blames this file."""
        return ConfigError(problem, option=self.option, value=str(self.path))

    def refuse_above(self, limit: int, size: int) -> None:
        """Raise ConfigError when *size* is more than *limit*."""
        if size > limit:
            raise self.error(f"{size} bytes; the guest has room for {limit}: give it more memory (-m)")

    def unpack(self, layout: str, offset: int, what: str) -> tuple[Any, ...]:
        """Decode the little-endian struct *layout* at *offset*. Raises ConfigError when the file ends before *what*."""
        format_ = "<" + layout
        if offset + struct.calcsize(format_) > len(self.data):
            raise self.error(f"the file ends inside its {what}")
        return struct.unpack_from(format_, self.data, offset)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # else opening a FIFO waits for its writer


def read_image(path: Path, option: str, limit: int) -> ImageFile:
    """Read a regular file of 1 to *limit* bytes. Raises ConfigError that names *option* and the file."""
    image = ImageFile(option=option, path=path, data=b"")
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            return _read(image, file, limit)
    except OSError as e:
        raise image.error(e.strerror or str(e)) from e
    except ValueError as e:  # a NUL inside the path
        raise image.error(str(e)) from e


def _read(image: ImageFile, file: BinaryIO, limit: int) -> ImageFile:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise image.error("not a regular file")
    image.refuse_above(limit, status.st_size)
    data = file.read(status.st_size)
    if len(data) != status.st_size:
        raise image.error("the file changed while it was read")
    if not data:
        raise image.error("the file is empty")
    return attrs.evolve(image, data=data)


@define(eq=False)
class KeptFiles:
    """The files of one machine by their paths, each as it was when it was read first."""

    _kept: dict[Path, ImageFile] = attrs.field(factory=dict, init=False, repr=False)

    def read(self, path: Path, option: str, limit: int) -> ImageFile:
        """As ``read_image``, of the file's own content where it was read before. Raises ConfigError."""
        if path not in self._kept:
            self._kept[path] = read_image(path, option, limit)
        image = attrs.evolve(self._kept[path], option=option)
        image.refuse_above(limit, len(image.data))
        return image

    def read_again(self, path: Path, option: str, limit: int, fd: int) -> ImageFile:
        """The content of *path*, open as *fd*, as it is now: it has been locked since. Raises ConfigError."""
        image = ImageFile(option=option, path=path, data=b"")
        try:
            with open(fd, "rb", closefd=False) as file:
                self._kept[path] = _read(image, file, limit)
        except OSError as e:
            raise image.error(e.strerror or str(e)) from e
        return self._kept[path]

    def replace(self, path: Path, data: bytes) -> None:
        """The machine itself has written *data* at the beginning of the file."""
        image = self._kept[path]
        self._kept[path] = attrs.evolve(image, data=data + image.data[len(data) :])
