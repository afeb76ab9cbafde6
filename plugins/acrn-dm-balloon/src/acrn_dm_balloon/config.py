"""Options of virtio-balloon."""

from pathlib import Path

import attrs

from acrn_dm import ByteSize, option

PAGE = 4096  # the balloon's unit, whatever the guest's pages are (5.5.6)
MOST = PAGE * 0xFFFF_FFFF  # num_pages has 32 bits


def pages_of(size: int) -> int:
    """*size* in pages. Raises ValueError where the field has no room for it, or it is no number of pages."""
    if size % PAGE or not 0 <= size <= MOST:
        raise ValueError(f"{size} bytes: expected a multiple of {PAGE} up to {MOST}")
    return size // PAGE


def _size(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    pages_of(value)


def _no_hinting(instance: object, attribute: "attrs.Attribute[bool]", value: bool) -> None:
    if value:
        raise ValueError("free_page_hint is for migration, which there is none; report=on gives free pages back")


@attrs.frozen(kw_only=True)
class BalloonConfig:
    """Options."""

    size: ByteSize = option(default=ByteSize(0), validator=_size, help="Memory that the guest is to give up.")
    control: Path | None = option(default=None, help="FIFO, or UNIX socket that is made, for lines while it runs.")
    script: Path | None = option(default=None, help="File of lines that are played when the guest's driver is there.")
    deflate_on_oom: bool = option(default=False, help="A guest that runs out of memory may take some back by itself.")
    stats: bool = option(default=True, help="The guest is asked for statistics.")
    report: bool = option(default=True, help="The guest reports free pages, which go back to the host.")
    free_page_hint: bool = option(default=False, validator=_no_hinting, hidden=True, help="Refused.")
