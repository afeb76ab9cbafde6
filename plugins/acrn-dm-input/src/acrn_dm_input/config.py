"""Options of virtio-input, and the original's way to write them."""

from pathlib import Path
from typing import ClassVar, Literal

import attrs

from acrn_dm import option, parse_options
from acrn_dm_input.description import UNION


def _fits(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if len(value.encode()) > UNION:
        raise ValueError(f"{attribute.name}: at most {UNION} bytes")


@attrs.frozen(kw_only=True)
class InputConfig:
    """Options."""

    GRAMMAR: ClassVar[str] = "PATH[,SERIAL] or options"

    evdev: Path | None = option(default=None, help="The host's device, /dev/input/eventN.")
    grab: bool = option(default=True, help="Nobody else on the host hears it while the machine runs.")
    kind: Literal["keyboard", "mouse", "tablet"] = option(
        default="keyboard", help="What is played, where no evdev is given."
    )
    script: Path | None = option(default=None, help="File of lines that are played when the guest's driver is there.")
    control: Path | None = option(default=None, help="FIFO, or UNIX socket that is made, for lines while it runs.")
    leds: Path | None = option(default=None, help="File that shows which LEDs the guest has lit.")
    name: str = option(default="", validator=_fits, help="The device's name in the guest; empty: its own.")
    serial: str = option(default="", validator=_fits, help="Its serial number in the guest; empty: its own.")

    def __attrs_post_init__(self) -> None:
        played = [n for n in ("script", "control", "leds") if getattr(self, n) is not None]
        if self.evdev is not None and played:
            raise ValueError(f"{played[0]} is for a device that is played, and evdev {self.evdev} is a real one")

    @classmethod
    def from_string(cls, text: str) -> "InputConfig":
        """Options, or the original's PATH[,SERIAL] with options behind."""
        first, _, rest = text.partition(",")
        if not first.startswith("/"):
            return parse_options(cls, text, "virtio-input")
        serial, comma, others = rest.partition(",")
        if serial and "=" not in serial:
            rest = f"serial={serial}{comma}{others}"
        return parse_options(cls, f"evdev={first},{rest}", "virtio-input")
