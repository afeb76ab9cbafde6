"""The medium of the built-in disk: an image in a file, watched on its way there."""

import os
import tempfile
from pathlib import Path
from typing import Any

from acrn_dm.devices import virtio_blk
from acrn_dm.devices.virtio_blk.device import BlkDevice
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.testing.conformance.outside.world import Medium
from acrn_dm.testing.conformance.subject import SLOT
from acrn_dm.testing.machine import SimMachine

SIZE = 256 << 10


class _Watched:
    """An image that notes what would be lost without power, and fails when told."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.volatile = False
        self.failure = 0

    def read(self, views: Any, offset: int) -> None:
        self._fail()
        self._image.read(views, offset)

    def read_cached(self, views: Any, offset: int) -> bool:
        return not self.failure and self._image.read_cached(views, offset)

    def write(self, views: Any, offset: int, *, durable: bool) -> None:
        self._fail()
        self._image.write(views, offset, durable=durable)
        self.volatile |= not durable

    def write_zeroes(self, offset: int, length: int, *, unmap: bool, durable: bool) -> None:
        self._fail()
        self._image.write_zeroes(offset, length, unmap=unmap, durable=durable)
        self.volatile |= not durable

    def flush(self) -> None:
        self._fail()
        self._image.flush()
        self.volatile = False

    def _fail(self) -> None:
        failure, self.failure = self.failure, 0
        if failure:
            raise OSError(failure, os.strerror(failure))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image, name)


class ImageMedium(Medium):
    """A ``virtio-blk`` on an image of its own, with *options* behind the path (``"ro,discard"``); *empty* for
    ``nodisk``, into which ``resize`` inserts the image. ``close`` removes the file::

        medium = ImageMedium("writeback")
        conform(medium.build, outside=medium)
    """

    def __init__(self, options: str = "", *, empty: bool = False) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="acrn-dm-conform-")
        self.path = Path(self._directory.name) / "disk.img"
        self.options = options
        self._empty = empty
        self._device: BlkDevice | None = None

    @property
    def text(self) -> str:
        """The device's options, as on the command line."""
        place = "nodisk" if self._empty else str(self.path)
        return f"{place},{self.options}" if self.options else place

    def build(self, machine: SimMachine) -> BlkDevice:
        """Put the disk into its slot; its medium is this from now on."""
        self.path.write_bytes(os.urandom(4096) * (SIZE // 4096))
        kind = virtio_blk.acrn_dm_device_types()[0]
        device: BlkDevice = machine.add(kind, self.text, slot=SLOT).device  # type: ignore[attr-defined]
        self._device = device
        machine.start()
        if device.image is not None:
            device.image = _Watched(device.image)  # type: ignore[assignment]
        return device

    @property
    def size(self) -> int:
        """0 while nothing is inserted."""
        return 0 if self._image is None else SIZE

    def read(self, offset: int, length: int) -> bytes:
        """Of the file."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, offset: int, data: bytes) -> None:
        """Into the file, and to the host's disk: a device that goes past the page cache sees it, too."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def fail_next(self, err: int) -> None:
        """Of the image."""
        self._watched.failure = err

    def volatile(self) -> bool:
        """Of the image: what it was not asked to keep, and no flush came behind."""
        return self._watched.volatile

    def resize(self, size: int) -> None:
        """Only an empty slot takes another capacity: it gets the image."""
        if self._device is None or self._device.image is not None:
            super().resize(size)
        assert self._device is not None
        self.path.write_bytes(bytes(SIZE))
        self._device.insert_medium(str(self.path))

    @property
    def serial(self) -> bytes:
        """Made of the options."""
        return b"" if self._device is None else self._device.serial

    def close(self) -> None:
        """Remove the image."""
        self._directory.cleanup()

    @property
    def _image(self) -> object:
        return None if self._device is None else self._device.image

    @property
    def _watched(self) -> _Watched:
        if not isinstance(self._image, _Watched):
            super().volatile()
        return self._image  # type: ignore[return-value]
