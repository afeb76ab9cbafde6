"""Options of ``virtio-blk``: ``[iothread[=N[@CPUS]],][mq=N,]PATH[,OPTION...]``, ``nodisk``,
``[mq=N,]vhost-user=SOCKET``, or ``driver=NAME[,OPTION...]`` with the driver's options and those of the disk that do not
speak of a file.
"""

from pathlib import Path
from typing import Any, ClassVar

import attrs

from acrn_dm.base.decimal_text import digits
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.io_threads import IoThreads, io_threads
from acrn_dm.base.records import frozen
from acrn_dm.contract.option_text import split_options
from acrn_dm.contract.options import from_mapping, option, vhost_user_option
from acrn_dm.devices.virtio_blk.rates import RateOptions

WHAT = "virtio-blk"
SECTOR = 512  # the unit of capacity and of request addresses, whatever the logical block size (5.2.6)
MAX_DISCARD_SEGMENTS = 256
BEFORE_THE_PATH = ("iothread", "mq")  # the original's place for them
NOT_BEHIND_THE_PATH = (*BEFORE_THE_PATH, "path", "nodisk", "cache")
MAX_SEGMENT_SECTORS = 0xFFFF_FFFF  # le32 in the configuration space


@frozen(kw_only=True)
class SectorSize:
    """Logical and physical block size in bytes."""

    logical: int
    physical: int


@frozen(kw_only=True)
class Range:
    """The part of the image that the guest sees, in logical blocks."""

    start: int
    size: int


@frozen(kw_only=True)
class Discard:
    """Limits of a discard request: sectors per segment (None: the capacity), segments, alignment (0: none)."""

    max_sectors: int | None = None
    max_segments: int = 1
    alignment: int = 0


def _behind_the_path(config: type) -> list[str]:
    names = [field.name for field in attrs.fields(config)]
    return [name for name in names if name not in (*NOT_BEHIND_THE_PATH, "vhost_user", "driver")]


def _sector_size(value: Any) -> SectorSize | None:
    if value is None or isinstance(value, SectorSize):
        return value
    logical, slash, physical = str(value).partition("/")
    size = digits(logical, "sectorsize")
    sizes = SectorSize(logical=size, physical=digits(physical, "sectorsize") if slash else size)
    for part in (sizes.logical, sizes.physical):
        if part < SECTOR or part & (part - 1) or part > 1 << 20:
            raise ValueError(f"sectorsize {value!r}: expected powers of two from 512 to 1048576")
    if sizes.logical > sizes.physical:
        raise ValueError(f"sectorsize {value!r}: the logical size is larger than the physical one")
    return sizes


def read_range(value: Any) -> Range | None:
    """Read ``STARTLBA/SIZE``. Raises ValueError."""
    if value is None or isinstance(value, Range):
        return value
    start, slash, size = str(value).partition("/")
    if not slash:
        raise ValueError(f"range {value!r}: expected STARTLBA/SIZE, both in logical blocks")
    part = Range(start=digits(start, "range"), size=digits(size, "range"))
    if part.size == 0:
        raise ValueError(f"range {value!r}: the size is 0")
    return part


def _discard(value: Any) -> Discard | None:
    if value is None or value is False or isinstance(value, Discard):
        return value or None
    if value is True:
        return Discard()
    parts = str(value).split(":")
    if len(parts) != 3:
        raise ValueError(f"discard {value!r}: expected MAXSECT:MAXSEG:ALIGN")
    sectors, segments, alignment = (digits(part, "discard") for part in parts)
    if not 1 <= segments <= MAX_DISCARD_SEGMENTS:
        raise ValueError(f"discard {value!r}: MAXSEG must be 1 to {MAX_DISCARD_SEGMENTS}")
    if not 1 <= sectors <= MAX_SEGMENT_SECTORS or alignment > MAX_SEGMENT_SECTORS:
        raise ValueError(f"discard {value!r}: MAXSECT must be 1 to {MAX_SEGMENT_SECTORS:#x}, ALIGN at most that")
    return Discard(max_sectors=sectors, max_segments=segments, alignment=alignment)


def _queues(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 1 <= value <= 256:
        raise ValueError(f"mq {value}: expected 1 to 256")


def _one_of(*words: str) -> Any:
    def check(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
        if value not in words:
            raise ValueError(f"{attribute.name} {value!r}: expected {' or '.join(words)}")

    return check


@frozen(kw_only=True)
class BlkConfig(RateOptions):
    """The options of one disk. Converters and validators raise ValueError, which the option reader turns into a
    ConfigError.
    """

    GRAMMAR: ClassVar[str] = (
        "[iothread[=N[@CPUS]],][mq=N,]PATH[,OPTION...] or nodisk or [mq=N,]vhost-user=SOCKET or driver=NAME[,OPTION...]"
    )
    NOT_WITH_DRIVER: ClassVar[frozenset[str]] = frozenset(
        {"path", "nodisk", "vhost_user", "nocache", "range", "secure_erase", "share", "aio"}
    )
    WORDS: ClassVar[frozenset[str]] = frozenset({"writeback", "writethru"})  # that are options without being fields

    path: Path | None = option(default=None, help="Raw image or block device.")
    nodisk: bool = option(default=False, help="Start without a medium; one can be inserted later.")
    vhost_user: Path | None = vhost_user_option()
    driver: str | None = option(
        default=None,
        metavar="NAME",
        help="What executes the requests, instead of a file: a block driver, whose own options stand beside it. "
        "'-s virtio-blk,driver=NAME,help' shows them.",
    )
    iothread: IoThreads = option(
        default=IoThreads(),
        converter=io_threads,
        metavar="N[@CPUS]",
        help="I/O loops of its own; CPUS: '/' between loops, ':' between CPUs, '*' for unpinned.",
    )
    mq: int = option(default=1, validator=_queues, help="Request queues, clipped to the number of guest CPUs.")
    cache: str = option(
        default="writethru",
        validator=_one_of("writethru", "writeback"),
        metavar="writethru|writeback",
        help="writethru: a completed write is on the medium; writeback: after the guest's flush. Also as bare words.",
    )
    ro: bool = option(default=False, help="The guest may not write.")
    nocache: bool = option(default=False, help="Bypass the host's page cache (O_DIRECT).")
    no_bst_block: bool = option(default=False, help="Accepted; requests are never held back for each other anyway.")
    discard: Discard | None = option(
        default=None,
        converter=_discard,
        metavar="MAXSECT:MAXSEG:ALIGN",
        help="Let the guest give sectors back to the host.",
    )
    secure_erase: bool = option(
        default=False, help="Let the guest erase sectors for good; the image is a block device that can (eMMC)."
    )
    sectorsize: SectorSize | None = option(
        default=None,
        converter=_sector_size,
        metavar="L[/P]",
        help="Logical and physical block size shown to the guest.",
    )
    range: Range | None = option(
        default=None, converter=read_range, metavar="STARTLBA/SIZE", help="Show, and lock, only this part of the image."
    )
    share: bool = option(
        default=False, help="Others may write the image, too, if they say the same; something else keeps them apart."
    )
    werror: str = option(
        default="enospc",
        validator=_one_of("enospc", "report", "stop"),
        metavar="enospc|report|stop",
        help="When the host fails a write: report it to the guest, or stop the guest until it is resumed (command "
        "monitor, acrnctl), which tries again; enospc stops it if the host's disk is full and reports the rest.",
    )
    rerror: str = option(
        default="report",
        validator=_one_of("report", "stop"),
        metavar="report|stop",
        help="When the host fails a read: report it to the guest, or stop the guest until it is resumed.",
    )
    aio: str = option(
        default="auto",
        validator=_one_of("auto", "threads", "io_uring", "python"),
        metavar="auto|threads|io_uring|python",
        help="What moves the data: the kernel's io_uring, or threads; auto: io_uring where the host has it. Where "
        "io_uring is asked for and not there, threads serve, with a warning. python: threads of Python's, slow.",
    )

    def __attrs_post_init__(self) -> None:
        self.check_rates()
        if self.path is None and not self.nodisk and self.vhost_user is None and self.driver is None:
            raise ValueError("the path of an image is missing (or nodisk, or vhost-user=SOCKET, or driver=NAME)")
        if self.path is not None and self.nodisk:
            raise ValueError("nodisk and the path of an image exclude each other")
        if self.driver is not None:
            self._refuse_file_options()
        if self.vhost_user is not None:
            self._refuse_medium_options()

    def _refuse_file_options(self) -> None:
        """They are the driver's, where it has a file."""
        for field in attrs.fields(type(self)):
            if field.name in self.NOT_WITH_DRIVER and getattr(self, field.name) != field.default:
                raise ValueError(f"{field.name} and driver exclude each other")

    def _refuse_medium_options(self) -> None:
        """The process behind vhost-user owns the medium: its options are given there."""
        for field in attrs.fields(type(self)):
            if field.name not in ("vhost_user", "mq") and getattr(self, field.name) != field.default:
                raise ValueError(f"{field.name} and vhost-user exclude each other")

    @classmethod
    def from_string(cls, text: str) -> "BlkConfig":
        """Read the original's grammar. Raises ConfigError."""
        tokens = split_options(text)
        values: dict[str, Any] = {}
        while tokens and tokens[0].partition("=")[0] in ("iothread", "mq", "vhost-user", "vhost_user"):
            key, eq, value = tokens.pop(0).partition("=")
            values[key] = value if eq else True
        if values.keys() & {"vhost-user", "vhost_user"} and not tokens:
            return from_mapping(cls, values, WHAT)
        if any(token.startswith("driver=") for token in tokens):
            return cls._behind(values, tokens, text)
        if not tokens or not tokens[0]:
            raise ConfigError("the path of an image is missing", option=WHAT, value=text)
        place = tokens.pop(0)
        return cls._behind(values | ({"nodisk": True} if place == "nodisk" else {"path": place}), tokens, text)

    @classmethod
    def _behind(cls, values: dict[str, Any], tokens: list[str], text: str) -> "BlkConfig":
        """Read *tokens*, which stand behind *values* in *text*. A disk with a driver has no path to stand behind."""
        behind_driver = not values.keys() & {"path", "nodisk"}
        for token in tokens:
            key, eq, value = token.partition("=")
            if key in ("writeback", "writethru"):
                values["cache"] = key  # the last one counts, as in the original
            elif key in BEFORE_THE_PATH and not behind_driver:
                how = f"{WHAT},{token},PATH"
                raise ConfigError(f"{key!r} stands before the path: {how}", option=WHAT, value=text)
            elif (key in NOT_BEHIND_THE_PATH and not behind_driver) or not key:
                known = ", ".join(("writeback", "writethru", *_behind_the_path(cls)))
                raise ConfigError(f"unknown option {key!r} behind the path; known: {known}", option=WHAT, value=text)
            elif key == "aio" and not eq:
                continue  # bare: the default
            else:
                values[key] = value if eq else True
        return from_mapping(cls, values, WHAT)
