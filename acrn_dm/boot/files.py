"""The user's image files, read once: what is checked is what is loaded, whatever happens to the file meanwhile."""

import os
import stat
import struct
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.errors import ConfigError


@attrs.frozen(kw_only=True, eq=False)
class ImageFile:
    """Contents of the file that *option* named."""

    option: str
    path: Path
    data: bytes = attrs.field(repr=False)

    def error(self, problem: str) -> ConfigError:
        """Return the error that blames this file."""
        return ConfigError(problem, option=self.option, value=str(self.path))

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
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise image.error("not a regular file")
            if status.st_size > limit:
                raise image.error(f"{status.st_size} bytes; the guest has room for {limit}: give it more memory (-m)")
            data = file.read(status.st_size)
    except OSError as e:
        raise image.error(e.strerror or str(e)) from e
    except ValueError as e:  # a NUL inside the path
        raise image.error(str(e)) from e
    if len(data) != status.st_size:
        raise image.error("the file changed while it was read")
    if not data:
        raise image.error("the file is empty")
    return attrs.evolve(image, data=data)
