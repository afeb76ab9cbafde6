"""Options of virtio-gpio, and the original's way to write them."""

import re
from pathlib import Path
from typing import ClassVar

import attrs

from acrn_dm import option, parse_options

MOST_LINES = 1024
ORIGINAL = re.compile(r"@(\w+)\{([^{}]+)\}")


def _count(instance: object, attribute: "attrs.Attribute[int | None]", value: int | None) -> None:
    if value is not None and not 1 <= value <= MOST_LINES:
        raise ValueError(f"count {value}: expected 1 to {MOST_LINES}")


def _names(instance: object, attribute: "attrs.Attribute[tuple[str, ...]]", value: tuple[str, ...]) -> None:
    names = [name.rpartition("=")[2] for name in value if name]
    if len(value) > MOST_LINES:
        raise ValueError(f"line: at most {MOST_LINES}")
    for name in names:
        if not (name.isascii() and name.isprintable()) or len(name) > 31:  # 5.18.6.1; what Linux keeps of it
            raise ValueError(f"line {name!r}: expected up to 31 printable ASCII characters")
        if names.count(name) > 1:
            raise ValueError(f"line {name!r}: two lines can't have one name")


@attrs.frozen(kw_only=True)
class GpioConfig:
    """Options."""

    GRAMMAR: ClassVar[str] = "@CHIP{LINE[=NAME][:LINE[=NAME]]...} or options"

    line: tuple[str, ...] = option(
        default=(), validator=_names, metavar="NAME", help="A line's name; with chip: NUMBER or NAME there [=NAME]."
    )
    count: int | None = option(default=None, validator=_count, help="Lines in all, where some have no name.")
    chip: Path | None = option(default=None, help="The host's chip, /dev/gpiochipN.")
    irq: bool = option(default=True, help="Lines interrupt.")
    control: Path | None = option(default=None, help="FIFO, or UNIX socket that is made, which drives simulated lines.")
    script: Path | None = option(default=None, help="File of lines that are played when the guest's driver is there.")

    def __attrs_post_init__(self) -> None:
        played = [n for n in ("script", "control") if getattr(self, n) is not None]
        if self.chip is not None and played:
            raise ValueError(f"{played[0]} drives simulated lines, and chip {self.chip} has real ones")
        if self.chip is None and not self.line and self.count is None:
            raise ValueError("which lines? Give line=NAME for each, or count=N, or chip=/dev/gpiochipN")
        if self.count is not None and self.count < len(self.line):
            raise ValueError(f"count {self.count}: there are {len(self.line)} names")

    @classmethod
    def from_string(cls, text: str) -> "GpioConfig":
        """Options, or the original's @CHIP{...}, for one chip, with options behind."""
        first, _, rest = text.partition(",")
        found = ORIGINAL.fullmatch(first)
        if found is None:
            return parse_options(cls, text, "virtio-gpio")
        lines = "".join(f",line={line}" for line in found[2].split(":"))
        return parse_options(cls, f"chip=/dev/{found[1]}{lines},{rest}", "virtio-gpio")
