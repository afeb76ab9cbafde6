"""The configuration space of a foreign function: which of it is answered here, and which by its server.

Ours is what a bus and a hypervisor have to know of: the header, the list of capabilities as it was found, MSI and
MSI-X. All other registers are the server's, read and written as the guest does. It is told of what the guest writes to
ours, too, but for addresses: BARs have none there, and an expansion ROM is not shown.
"""

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user import device as numbers
from acrn_dm.devices.vfio_user.capabilities import AF, MSIX_LENGTH, Capabilities
from acrn_dm.devices.vfio_user.description import Description
from acrn_dm.pci import config_space as cs
from acrn_dm.pci import msix
from acrn_dm.pci.bar import COUNT, MAXIMUM_SIZE, BarKind

ROM_BAR, END_OF_BARS = 0x30, cs.BAR0 + 4 * COUNT
EXPRESS_FLAGS, EXPRESS_CONTROL, EXPRESS_RESET = 2, 8, 1 << 15
EXPRESS_TYPE, INTEGRATED = 0xF0, 0x90
ENDPOINTS = (0x00, 0x10)  # an endpoint, a legacy endpoint
AF_CONTROL, AF_RESET = 4, 1


class ConfigShape:
    """The shape that *description* and *capabilities* give the configuration space."""

    def __init__(self, description: Description, capabilities: Capabilities) -> None:
        self._said = description.config
        self._capabilities = capabilities
        self._theirs = bytearray(cs.FIRST_CAPABILITY) + b"\xff" * (cs.SIZE - cs.FIRST_CAPABILITY)

    def number(self, offset: int, size: int) -> int:
        """What the server said at first."""
        return int.from_bytes(self._said[offset : offset + size], "little")

    def theirs(self, offset: int, size: int) -> int:
        """Mask of the bits in [offset, offset + size) that the server answers."""
        return int.from_bytes(self._theirs[offset : offset + size], "little")

    def define(self, config: cs.ConfigSpace) -> None:
        """Lay out in *config* what is ours, but for identity and BARs."""
        found = self._capabilities
        status = self.number(cs.STATUS, 2) & ~(cs.STATUS_ERRORS | cs.STATUS_INTERRUPT)
        config.define(cs.STATUS, 2, status, clear_by_one=cs.STATUS_ERRORS)
        config.define(cs.CAPABILITIES, 1, found.offsets[0] if found.offsets else 0)
        following = (*found.offsets[1:], 0)
        for at, then in zip(found.offsets, following, strict=False):
            self._take(config, at, self._said[at : at + 1] + bytes([then]))
        if found.msi is not None and found.msi_form is not None:
            self._take(config, found.msi + 2, found.msi_form.body, found.msi_form.writable)
            if found.msi_form.maskable:
                at = found.msi + found.msi_form.pending
                self._theirs[at : at + 4] = b"\xff" * 4
        if found.msix is not None:
            control = msix.CONTROL_ENABLE | msix.CONTROL_FUNCTION_MASK
            body = self._said[found.msix.at + 2 : found.msix.at + MSIX_LENGTH]
            first = int.from_bytes(body[:2], "little") & ~control
            self._take(config, found.msix.at + 2, first.to_bytes(2, "little") + body[2:], control.to_bytes(2, "little"))
        if (express := found.places.get(cs.CAP_EXPRESS)) is not None:
            flags = self.number(express + EXPRESS_FLAGS, 2)
            if flags & EXPRESS_TYPE in ENDPOINTS:  # there is no port above it: PCI Express 3.0, 7.8.2
                flags = flags & ~EXPRESS_TYPE | INTEGRATED
            self._take(config, express + EXPRESS_FLAGS, flags.to_bytes(2, "little"))

    def passes_on(self, offset: int, size: int) -> bool:
        """Whether the server is told of what the guest writes there."""
        return not (cs.BAR0 <= offset < END_OF_BARS or ROM_BAR <= offset < ROM_BAR + 4)

    def resets(self, offset: int, size: int, value: int) -> bool:
        """Whether the guest resets the function by such a write (FLR, by PCI Express or by Advanced Features)."""
        places = self._capabilities.places
        for id_, register, bit in ((cs.CAP_EXPRESS, EXPRESS_CONTROL, EXPRESS_RESET), (AF, AF_CONTROL, AF_RESET)):
            if id_ in places:
                shift = 8 * (places[id_] + register - offset)
                there = value & (1 << 8 * size) - 1
                if (there >> shift if shift >= 0 else there << -shift) & bit:
                    return True
        return False

    def _take(self, config: cs.ConfigSpace, at: int, data: bytes, writable: bytes = b"") -> None:
        config.define(at, len(data), int.from_bytes(data, "little"), writable=int.from_bytes(writable, "little"))
        self._theirs[at : at + len(data)] = bytes(len(data))


def bar_kinds(description: Description) -> dict[int, BarKind]:
    """The kind of each BAR that there is. Raises PeerError for those that can't be."""
    kinds: dict[int, BarKind] = {}
    taken = -1
    for index in range(COUNT):
        size = description.regions[index].size
        if not size:
            continue
        register = int.from_bytes(description.config[cs.BAR0 + 4 * index :][:4], "little")
        kind = BarKind.IO if register & 1 else BarKind.MEM64 if register & 6 == 4 else BarKind.MEM32
        if index == taken or (kind is BarKind.MEM64 and index == COUNT - 1):
            raise PeerError(f"its BAR {index} is the other half of a 64-bit one")
        if size > MAXIMUM_SIZE[kind]:
            raise PeerError(f"its BAR {index} ({kind.name}) has {size:#x} bytes, more than {MAXIMUM_SIZE[kind]:#x}")
        kinds[index], taken = kind, index + 1 if kind is BarKind.MEM64 else -1
    return kinds


def sizes(description: Description) -> dict[int, int]:
    """Bytes of each BAR that there is."""
    return {index: description.regions[index].size for index in range(COUNT) if description.regions[index].size}


def has_pin(description: Description) -> bool:
    """Whether it interrupts by a pin."""
    return bool(description.config[cs.INTERRUPT_PIN] and description.interrupts[numbers.INTX])
