"""Options of virtio-i2c, and the original's way to write them."""

import re
from pathlib import Path
from typing import ClassVar

import attrs

from acrn_dm import ConfigError, option, parse_options

MOST_7_BIT, MOST_10_BIT = 0x7F, 0x3FF
ORIGINAL = re.compile(r"(\d{1,4})((?::[0-9a-fA-F]{1,3}(?:@\w+)?)+)")  # the bus in decimal, addresses in hexadecimal


@attrs.frozen
class DeviceText:
    """A simulated device as the user wrote it: ``KIND@ADDRESS[=TEXT]``."""

    kind: str
    address: int
    text: str

    @classmethod
    def parse(cls, written: str) -> "DeviceText":
        """Raises ValueError."""
        place, _, text = written.partition("=")
        kind, at, address = place.partition("@")
        if not kind or not at:
            raise ValueError(f"device {written!r}: expected KIND@ADDRESS[=TEXT], such as 24c02@0x50")
        try:
            number = int(address, 0) if len(address) < 20 else -1
        except ValueError:
            number = -1
        return cls(kind, checked(number, written), text)


def checked(address: int, written: object = None) -> int:
    """*address*, if it is one. Raises ValueError."""
    if not 0 <= address <= MOST_10_BIT:
        raise ValueError(f"{written or address}: an address is 0 to {MOST_7_BIT:#x}, or {MOST_10_BIT:#x} with 10 bits")
    return address


def _devices(instance: object, attribute: "attrs.Attribute[tuple[str, ...]]", value: tuple[str, ...]) -> None:
    addresses = [DeviceText.parse(written).address for written in value]
    for address in addresses:
        if addresses.count(address) > 1:
            raise ValueError(f"device: two of them at {address:#x}")


def _allow(instance: object, attribute: "attrs.Attribute[tuple[int, ...]]", value: tuple[int, ...]) -> None:
    for address in value:
        checked(address)


@attrs.frozen(kw_only=True)
class I2cConfig:
    """Options."""

    GRAMMAR: ClassVar[str] = "BUS:ADDRESS[:ADDRESS]... or options"

    device: tuple[str, ...] = option(
        default=(),
        validator=_devices,
        metavar="KIND@ADDRESS[=TEXT]",
        help="A simulated device: 24c02, lm75, or a class.",
    )
    bus: Path | None = option(default=None, help="The host's bus, /dev/i2c-N.")
    allow: tuple[int, ...] = option(
        default=(), validator=_allow, metavar="ADDRESS", help="An address of the bus that the guest reaches."
    )
    control: Path | None = option(
        default=None, help="FIFO, or UNIX socket that is made, for lines to simulated devices."
    )
    script: Path | None = option(default=None, help="File of lines that are played when the guest's driver is there.")

    def __attrs_post_init__(self) -> None:
        simulated = [n for n in ("device", "script", "control") if getattr(self, n)]
        if self.bus is not None and simulated:
            raise ValueError(f"{simulated[0]} is for a simulated bus, and bus {self.bus} is a real one")
        if self.bus is not None and not self.allow:
            raise ValueError(f"which addresses of {self.bus} may the guest reach? Give allow=ADDRESS for each")
        if self.bus is None and self.allow:
            raise ValueError("allow is for a bus of the host")

    @classmethod
    def from_string(cls, text: str) -> "I2cConfig":
        """Options, or the original's BUS:ADDRESS[:ADDRESS]..., for one bus, with options behind."""
        first, _, rest = text.partition(",")
        found = ORIGINAL.fullmatch(first)
        if found is None:
            return parse_options(cls, text, "virtio-i2c")
        if "@" in first:
            raise ConfigError("there are no ACPI nodes (@...) for I2C devices here", option="virtio-i2c", value=first)
        allow = "".join(f",allow=0x{address}" for address in found[2].split(":")[1:])
        return parse_options(cls, f"bus=/dev/i2c-{found[1]}{allow},{rest}", "virtio-i2c")
