"""The regions of a function: its BARs, an empty ROM, configuration space; accesses are cut into what registers take."""

from collections.abc import Iterator

from acrn_dm.backends.wire.vfio_user.device import CONFIG, REGIONS
from acrn_dm.backends.wire.vfio_user.message import Refused
from acrn_dm.export.vfio_user.parsing import Access
from acrn_dm.pci import config_space as cs
from acrn_dm.pci.bar import COUNT
from acrn_dm.pci.function import PciFunction

OFFSET_SHIFT = 40  # where a region lies in the device's one file, as the kernel's vfio has it


class Regions:
    """The regions of *function*."""

    def __init__(self, function: PciFunction) -> None:
        self._function = function

    def size(self, index: int) -> int:
        """Bytes of region *index*, 0 for one that the function has not got. Raises Refused."""
        if index >= REGIONS:
            raise Refused(f"there is no region {index}")
        if index == CONFIG:
            return cs.EXTENDED_SIZE if self._function.express else cs.SIZE
        bar = self._function.bars.get(index)
        return bar.size if bar is not None else 0

    def read(self, access: Access) -> bytes:
        """What the driver reads. Raises Refused outside the region."""
        self._check(access)
        function, parts = self._function, []
        if access.region == CONFIG:
            for at, size in _pieces(access.offset, access.count, 4):
                parts.append(self._config_read(at, size).to_bytes(size, "little"))
        else:
            window = function.bars[access.region].window
            for at, size in _pieces(access.offset, access.count, 8):
                value = (1 << 8 * size) - 1 if window is None else window.read(at, size)
                parts.append(value.to_bytes(size, "little"))
        return b"".join(parts)

    def write(self, access: Access, data: bytes) -> None:
        """The driver writes *data*. Raises Refused outside the region."""
        self._check(access)
        for at, size in _pieces(access.offset, access.count, 4 if access.region == CONFIG else 8):
            value = int.from_bytes(data[at - access.offset :][:size], "little")
            if access.region == CONFIG:
                self._config_write(at, size, value)
            else:
                self._write_bar(access.region, at, size, value)

    def _config_read(self, at: int, size: int) -> int:
        """An Express function has a list of extended capabilities, an empty one (PCI Express 3.0, 7.9.1)."""
        if at >= cs.SIZE:
            return 0
        with self._function.lock:
            return self._function.config_read(at, size)

    def _config_write(self, at: int, size: int, value: int) -> None:
        if at < cs.SIZE:
            with self._function.lock:
                self._function.config_write(at, size, value)

    def _write_bar(self, index: int, offset: int, size: int, value: int) -> None:
        """The table of MSI-X is no driver's: who has the eventfds has its entries."""
        bar = self._function.bars[index]
        if bar.window is not None and bar.handler is not self._function.msix:
            bar.window.write(offset, size, value)

    def _check(self, access: Access) -> None:
        if access.region < REGIONS and access.region != CONFIG and access.region not in range(COUNT):
            raise Refused(f"region {access.region} is empty")
        if access.offset + access.count > self.size(access.region):
            raise Refused(f"{access.count:#x} bytes at {access.offset:#x} are not in region {access.region}")


def _pieces(offset: int, count: int, widest: int) -> Iterator[tuple[int, int]]:
    """Aligned accesses that make [offset, offset + count) up, the widest ones that there can be."""
    end = offset + count
    while offset < end:
        size = widest
        while offset % size or offset + size > end:
            size //= 2
        yield offset, size
        offset += size
