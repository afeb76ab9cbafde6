"""Options: what one is, and the ways to write it. The options themselves are in ``option_table``."""

import enum
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from acrn_dm.base.records import frozen


class Group(enum.Enum):
    """Headings of the help, in order."""

    GUEST = "The guest"
    DEVICES = "Devices"
    RUN = "Where and how it runs"
    ACRN = "On the ACRN hypervisor"
    CONFIG = "Configuration and plugins"
    CHECK = "Looking without running"
    PLUGIN = "Options of plugins"
    PLATFORM = "Of the original; checked, but not provided here"
    OBSOLETE = "Obsolete; each is ignored with a warning"


class Effect(enum.Enum):
    """The effect of using an option."""

    SET = "sets a value"
    IGNORE = "warns and goes on"  # the guest runs without it, perhaps slower
    REFUSE = "ends with a configuration error"  # the guest would not be the one asked for


@frozen(kw_only=True)
class Option:
    """One option. ``metavar`` None is a switch; ``field`` is where ``parse.Draft`` keeps the value (see there)."""

    name: str
    help: str
    group: Group
    short: str = ""
    metavar: str | None = None
    parse: Callable[[str], Any] = str
    field: str = ""
    repeat: bool = False  # each use adds a value; otherwise the last one counts
    toml: tuple[type, ...] = ()  # types besides text that a TOML value may have
    listing: bool = False  # a TOML list is written with commas
    in_file: bool = True
    effect: Effect = Effect.SET
    note: str = ""  # why it is ignored or refused, what to do instead
    check: Callable[[Any], None] | None = None  # looked at before a refusal; raises ValueError
    original: bool = True

    @property
    def usage(self) -> str:
        """How it is written: ``-m, --memsize SIZE``."""
        value = f" {self.metavar}" if self.metavar else ""
        return (f"-{self.short}, " if self.short else "") + f"--{self.name}{value}"


@frozen
class Table:
    """A set of options with the ways to write each on the command line and in a file."""

    options: tuple[Option, ...]
    spellings: dict[str, Option] = attrs.field(init=False, repr=False)  # "-m", "--memsize", "--mem" … to its option

    @spellings.default
    def _all_spellings(self) -> dict[str, Option]:
        found = {f"-{o.short}": o for o in self.options if o.short}
        # An abbreviation that worked with the original goes on working, whatever options we or plugins have added.
        for names in ([o for o in self.options if o.original], [o for o in self.options if not o.original]):
            found |= {spelling: o for spelling, o in _abbreviations(names).items() if spelling not in found}
        return found | {f"--{o.name}": o for o in self.options}

    @property
    def long_names(self) -> list[str]:
        """All long spellings in the notation of ``getopt``."""
        longs = ((spelling, o) for spelling, o in self.spellings.items() if spelling.startswith("--"))
        return [spelling[2:] + ("=" if o.metavar else "") for spelling, o in longs]

    def by_key(self) -> dict[str, Option]:
        """The options that may stand in a file, by their names with underscores."""
        return {key_of(o.name): o for o in self.options if o.in_file}


def key_of(name: str) -> str:
    """A TOML key in the form in which keys are compared: ``-`` and ``_`` are the same."""
    return name.replace("-", "_")


def _abbreviations(options: Iterable[Option]) -> dict[str, Option]:
    """Unique proper prefixes of the long names."""
    found: dict[str, list[Option]] = {}
    for option in options:
        for length in range(1, len(option.name)):
            found.setdefault(f"--{option.name[:length]}", []).append(option)
    return {prefix: candidates[0] for prefix, candidates in found.items() if len(candidates) == 1}
