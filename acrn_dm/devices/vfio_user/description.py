"""Questions to a vfio-user server, and its answers, of which nothing is believed that can't be so.

The order is the protocol's: VERSION, then DEVICE_GET_INFO, its regions, its interrupts, its configuration space.
"""

import json
import struct

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user import device as numbers
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user import version
from acrn_dm.backends.wire.vfio_user.message import Command, Message
from acrn_dm.base.records import frozen
from acrn_dm.devices.vfio_user.link import Link
from acrn_dm.pci import config_space as cs

PAGE = 4096
MOST_MAPS = 65535
MOST_VECTORS = {numbers.INTX: 1, numbers.MSI: 32, numbers.MSIX: 2048}  # PCI 3.0, 6.8
ROOM = 4096  # for the capabilities of a region


@frozen(kw_only=True)
class Region:
    """One region, of *size* bytes; 0 for one that the device has not got."""

    size: int = 0
    flags: int = 0

    @property
    def readable(self) -> bool:
        """Whether it may be read."""
        return bool(self.flags & numbers.READ)

    @property
    def writable(self) -> bool:
        """Whether it may be written."""
        return bool(self.flags & numbers.WRITE)

    @property
    def mapped(self) -> bool:
        """Whether its server has some of it in a file for us."""
        return bool(self.flags & numbers.MAPPED)


@frozen(kw_only=True)
class Description:
    """A device: *regions* by their number, *interrupts* (how many of INTx, MSI, MSI-X), *config* as it is at first."""

    resets: bool
    regions: tuple[Region, ...]
    interrupts: tuple[int, ...]
    config: bytes

    def is_like(self, other: "Description") -> bool:
        """Whether a guest that has found *other* would not see the difference: registers besides."""
        fixed = ((cs.VENDOR_ID, 4), (cs.REVISION, 4), (cs.SUBSYSTEM_VENDOR, 4), (cs.INTERRUPT_PIN, 1))
        same = all(self.config[at : at + size] == other.config[at : at + size] for at, size in fixed)
        return same and (self.regions, self.interrupts) == (other.regions, other.interrupts)


def greet(link: Link) -> int:
    """Agree on a version and on limits; returns the pages' size that mappings need. Raises HostError."""
    said = {"max_msg_fds": wire.MAX_FDS, "max_data_xfer_size": wire.MAX_TRANSFER, "pgsizes": PAGE}
    text = json.dumps({"capabilities": {**said, "max_dma_maps": MOST_MAPS}}, separators=(",", ":"))
    answer = link.ask(Command.VERSION, wire.VERSION.pack(0, 0) + text.encode() + b"\0")
    message = Message(id=0, command=Command.VERSION, flags=wire.REPLY, error=0, payload=answer, fds=[])
    major, minor, capabilities = version.parse(message)
    if (major, minor) != (0, 0):
        raise PeerError(f"its version is {major}.{minor}, expected 0.0")
    link.most = version.limit(capabilities, "max_data_xfer_size", wire.MAX_TRANSFER)
    said_fds = version.limit(capabilities, "max_msg_fds", wire.MAX_FDS)
    link.most_fds = said_fds if "max_msg_fds" in capabilities else 1
    sizes = capabilities.get("pgsizes", PAGE)
    if type(sizes) is not int or sizes <= 0:
        raise PeerError(f"VERSION whose pgsizes is {sizes!r:.40}")
    return sizes & -sizes


def describe(link: Link) -> Description:
    """Ask for all of it. Raises HostError."""
    _, flags, regions, kinds = wire.DEVICE_INFO.unpack_from(_ask(link, Command.DEVICE_GET_INFO, wire.DEVICE_INFO, 0))
    if not flags & numbers.DEVICE_IS_PCI:
        raise PeerError("it is no PCI device")
    if regions <= numbers.CONFIG:
        raise PeerError(f"it has {regions} regions; a PCI device has {numbers.REGIONS}")
    known = tuple(_region(link, index) for index in range(numbers.CONFIG + 1))
    counts = tuple(_count(link, index) if index < kinds else 0 for index in MOST_VECTORS)
    size = known[numbers.CONFIG].size
    if size not in (cs.SIZE, cs.EXTENDED_SIZE) or not known[numbers.CONFIG].readable:
        raise PeerError(f"its configuration space has {size} bytes, expected {cs.SIZE} or {cs.EXTENDED_SIZE}")
    config = read(link, numbers.CONFIG, 0, cs.SIZE)
    if kind := config[cs.HEADER_TYPE] & ~cs.MULTI_FUNCTION:
        raise PeerError(f"its header is of type {kind}, that of a bridge")
    return Description(resets=bool(flags & numbers.DEVICE_RESETS), regions=known, interrupts=counts, config=config)


def read(link: Link, region: int, offset: int, count: int) -> bytes:
    """*count* bytes of *region*, in as many messages as they need. Raises HostError."""
    parts = []
    while count:
        size = min(count, link.most)
        place = wire.REGION.pack(offset, region, size)
        answer = link.ask(Command.REGION_READ, place)
        if len(answer) != wire.REGION.size + size or not answer.startswith(place):
            raise link.broken(f"REGION_READ of {size} bytes at {offset:#x} of region {region} brought other ones")
        parts.append(answer[wire.REGION.size :])
        offset, count = offset + size, count - size
    return b"".join(parts)


def ask_region(link: Link, index: int, brought: list[int] | None = None) -> bytes:
    """The description of region *index*, capabilities and all; descriptors that come along are added to *brought*.
    Raises HostError.
    """
    answer = _ask(link, Command.DEVICE_GET_REGION_INFO, wire.REGION_INFO, index, room=ROOM, brought=brought)
    got = wire.REGION_INFO.unpack_from(answer)[2]
    if got != index:
        raise PeerError(f"DEVICE_GET_REGION_INFO of region {index} told of region {got}")
    return answer


def _region(link: Link, index: int) -> Region:
    _, flags, _, _, size, _ = wire.REGION_INFO.unpack_from(ask_region(link, index))
    return Region(size=size, flags=flags)


def _count(link: Link, index: int) -> int:
    answer = _ask(link, Command.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO, index)
    got, count = (int(number) for number in wire.IRQ_INFO.unpack_from(answer)[2:])
    if got != index:
        raise PeerError(f"DEVICE_GET_IRQ_INFO of kind {index} told of kind {got}")
    if count > MOST_VECTORS[index]:
        raise PeerError(f"it has {count} interrupts of kind {index}, of which there are {MOST_VECTORS[index]} at most")
    return count


def _ask(
    link: Link, command: Command, form: struct.Struct, index: int, *, room: int = 0, brought: list[int] | None = None
) -> bytes:
    """The answer to what has the size of its answer first, and *index* third: as long as *form* at least."""
    numbers_of = len(form.unpack(bytes(form.size)))
    question = form.pack(form.size + room, 0, index, *(0,) * (numbers_of - 3))
    answer = link.ask(command, question, brought=brought)
    if not form.size <= len(answer) <= form.size + room:
        raise PeerError(f"{command.name} was answered with {len(answer)} bytes, expected {form.size}")
    return answer
