"""The description of an input device, and the configuration space that a driver asks it from (virtio 5.8.4, 5.8.5)."""

import struct
from collections.abc import Iterable, Mapping

import attrs

ID_NAME, ID_SERIAL, ID_DEVIDS, PROP_BITS, EV_BITS, ABS_INFO = 0x01, 0x02, 0x03, 0x10, 0x11, 0x12
HEADER, UNION = 8, 128  # select, subsel, size, reserved[5]; then what was selected
CONFIG_BYTES = HEADER + UNION
IDS, ABS = struct.Struct("<HHHH"), struct.Struct("<iiiii")
BUS_VIRTUAL, VENDOR = 0x06, 0x1AF4


@attrs.frozen(kw_only=True)
class AbsInfo:
    """One absolute axis, in the device's units."""

    minimum: int
    maximum: int
    fuzz: int = 0
    flat: int = 0
    resolution: int = 0  # units per millimetre

    def pack(self) -> bytes:
        """struct virtio_input_absinfo."""
        return ABS.pack(self.minimum, self.maximum, self.fuzz, self.flat, self.resolution)


def bitmap(bits: Iterable[int]) -> bytes:
    """These bits, least significant first, without zero bytes at the end."""
    value = sum(1 << bit for bit in set(bits))
    return value.to_bytes(-(-value.bit_length() // 8), "little")


@attrs.frozen(kw_only=True)
class Description:
    """What a device is and can say. *events* has a bitmap of codes for each event type that it has."""

    name: str
    serial: str = ""
    ids: tuple[int, int, int, int] = (BUS_VIRTUAL, VENDOR, 0, 1)  # bus, vendor, product, version
    properties: bytes = b""
    events: Mapping[int, bytes] = attrs.field(factory=dict)
    axes: Mapping[int, AbsInfo] = attrs.field(factory=dict)

    def value(self, select: int, subsel: int) -> bytes:
        """What the driver finds after it wrote *select* and *subsel*; empty where there is nothing."""
        if select == EV_BITS:
            return self.events.get(subsel, b"")[:UNION]
        if select == ABS_INFO:
            return self.axes[subsel].pack() if subsel in self.axes else b""
        if subsel:
            return b""
        whole = {ID_NAME: self.name.encode(), ID_SERIAL: self.serial.encode(), PROP_BITS: self.properties}
        return IDS.pack(*self.ids) if select == ID_DEVIDS else whole.get(select, b"")[:UNION]


@attrs.define(eq=False)
class ConfigSpace:
    """The driver's window on a description."""

    select: int = 0
    subsel: int = 0

    def read(self, description: Description, offset: int, size: int) -> bytes:
        """The space as it is now."""
        value = description.value(self.select, self.subsel)
        header = bytes([self.select, self.subsel, len(value)]).ljust(HEADER, b"\0")
        return (header + value.ljust(UNION, b"\0"))[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Take what falls on the two fields that can be written."""
        for at, byte in enumerate(data, offset):
            if at == 0:
                self.select = byte
            elif at == 1:
                self.subsel = byte

    def reset(self) -> None:
        """Nothing is selected."""
        self.select = self.subsel = 0
