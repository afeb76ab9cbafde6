"""The registers in one BAR of a foreign function: the server's, but for MSI-X's table; pending bits are of both."""

from collections.abc import Callable

from acrn_dm.devices.vfio_user.capabilities import MsixPlace
from acrn_dm.devices.vfio_user.server import Server
from acrn_dm.pci.msix import Msix, pba_offset


class Registers:
    """The handler of BAR *index*. *looked* is called after each access that the server has seen."""

    def __init__(
        self, server: Server, index: int, looked: Callable[[], None], table: tuple[MsixPlace, Msix] | None
    ) -> None:
        self._server = server
        self._index = index
        self._looked = looked
        self._table = table

    def read(self, offset: int, size: int) -> int:
        """The guest reads; as ones what the server has not got."""
        ours = self._in_table(offset, size)
        if ours is not None:
            msix, at = ours
            value = msix.read(at, size)
            if at >= pba_offset(msix.vectors):  # what waits for a vector that the server knows to be masked
                value |= self._server.read(self._index, offset, size)
            return value
        value = self._server.read(self._index, offset, size)
        self._looked()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes."""
        ours = self._in_table(offset, size)
        if ours is not None:
            msix, at = ours
            msix.write(at, size, value)
            return
        self._server.write(self._index, offset, size, value, posted=True)
        self._looked()

    def _in_table(self, offset: int, size: int) -> tuple[Msix, int] | None:
        """MSI-X, and the offset in what it calls its BAR, for an access that meets table or pending bits."""
        if self._table is None:
            return None
        place, msix = self._table
        for stretch, base in ((place.table, 0), (place.pba, pba_offset(msix.vectors))):
            if stretch.bar == self._index and stretch.offset < offset + size and offset < stretch.offset + stretch.size:
                return msix, base + offset - stretch.offset
        return None
