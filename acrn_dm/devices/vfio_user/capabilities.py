"""The capability list of a foreign function, as it is when its server is asked, once: it stays so for the guest.

MSI and MSI-X are ours to execute, at the places where they are; the registers of all others are the server's.
"""

from collections.abc import Iterator, Mapping

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.base.records import frozen
from acrn_dm.pci import config_space as cs
from acrn_dm.pci import msi, msix
from acrn_dm.pci.msi import MsiForm

POWER, AF = 0x01, 0x13
LENGTHS = {cs.CAP_EXPRESS: 0x14, AF: 6}  # of those whose registers are looked at; 2 bytes are in any
MSIX_LENGTH = 12
TABLE, PBA = 4, 8  # offsets in MSI-X's capability
BIR = 7


@frozen(kw_only=True)
class TablePlace:
    """A stretch of a BAR."""

    bar: int
    offset: int
    size: int

    def meets(self, other: "TablePlace") -> bool:
        """Whether they overlap."""
        apart = self.offset >= other.offset + other.size or other.offset >= self.offset + self.size
        return self.bar == other.bar and not apart


@frozen(kw_only=True)
class MsixPlace:
    """MSI-X: where its capability is, and table and pending bits."""

    at: int
    vectors: int
    table: TablePlace
    pba: TablePlace


@frozen(kw_only=True)
class Capabilities:
    """*places*: offset by id, of the first of each. *msi* is the offset of that capability, if there is one."""

    offsets: tuple[int, ...]
    places: Mapping[int, int]
    msi: int | None
    msi_form: MsiForm | None
    msix: MsixPlace | None


def capabilities_of(config: bytes, sizes: Mapping[int, int]) -> Capabilities:
    """Those in *config*, the first 256 bytes; *sizes* are those of the BARs. Raises PeerError."""
    offsets = tuple(_walk(config))
    places: dict[int, int] = {}
    for at in offsets:
        places.setdefault(config[at], at)
    at_msi = places.get(msi.CAPABILITY_ID)
    form = None if at_msi is None else _msi(config, at_msi)
    at_msix = places.get(msix.CAPABILITY_ID)
    found = None if at_msix is None else _msix(config, at_msix, sizes)
    for id_, length in LENGTHS.items():
        if id_ in places:
            _check_room(places[id_], length, f"capability {id_:#x}")
    _check_apart(offsets, {at: n for at, n in ((at_msi, form and form.length), (at_msix, MSIX_LENGTH)) if at and n})
    return Capabilities(offsets=offsets, places=places, msi=at_msi, msi_form=form, msix=found)


def _walk(config: bytes) -> Iterator[int]:
    """Offsets, in the order of the list, which ends. The two low bits of a pointer are reserved (PCI 3.0, 6.7)."""
    if not int.from_bytes(config[cs.STATUS : cs.STATUS + 2], "little") & cs.STATUS_CAPABILITIES:
        return
    seen: set[int] = set()
    at = config[cs.CAPABILITIES] & ~3
    while at:
        if at < cs.FIRST_CAPABILITY:
            raise PeerError(f"its capability list leads to {at:#x}, which is in the header")
        if at in seen:
            raise PeerError(f"its capability list comes back to {at:#x}")
        seen.add(at)
        yield at
        at = config[at + 1] & ~3


def _msi(config: bytes, at: int) -> MsiForm:
    try:
        form = MsiForm.of(int.from_bytes(config[at + 2 : at + 4], "little"))
    except ValueError as e:
        raise PeerError(f"it has {e}") from e
    _check_room(at, form.length, "MSI")
    return form


def _msix(config: bytes, at: int, sizes: Mapping[int, int]) -> MsixPlace:
    _check_room(at, MSIX_LENGTH, "MSI-X")
    vectors = (int.from_bytes(config[at + 2 : at + 4], "little") & msix.MAX_VECTORS - 1) + 1
    places = []
    for what, offset, size in (
        ("table", TABLE, vectors * msix.ENTRY_SIZE),
        ("pending bits", PBA, -(-vectors // 64) * 8),
    ):
        register = int.from_bytes(config[at + offset : at + offset + 4], "little")
        place = TablePlace(bar=register & BIR, offset=register & ~BIR, size=size)
        if place.offset + size > sizes.get(place.bar, 0):
            text = f"its MSI-X {what} ({size:#x} bytes at {place.offset:#x}) is not in BAR {place.bar}"
            raise PeerError(f"{text}, which has {sizes.get(place.bar, 0):#x}")
        places.append(place)
    table, pba = places
    if table.meets(pba):
        raise PeerError("its MSI-X table and its pending bits overlap")
    return MsixPlace(at=at, vectors=vectors, table=table, pba=pba)


def _check_room(at: int, length: int, what: str) -> None:
    if at + length > cs.SIZE:
        raise PeerError(f"its {what} at {at:#x} does not end in the configuration space")


def _check_apart(offsets: tuple[int, ...], ours: Mapping[int, int]) -> None:
    """What is ours to execute has no other capability in it."""
    for at, length in ours.items():
        inside = next((other for other in offsets if at < other < at + length), None)
        if inside is not None:
            raise PeerError(f"its capabilities at {at:#x} and {inside:#x} overlap")
