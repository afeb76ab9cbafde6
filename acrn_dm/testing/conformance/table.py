"""The table of requirements: what a device owes its driver, one row for each, read from ``rows.csv``.

Rows of the virtio specification (1.4) keep its levels; ``DESC`` is what it states as plain fact, without a keyword.
Rows called ``dm.`` are this project's own, where no row says what a device can do wrong; ``pcifn.`` are those of PCI
functions that are no virtio devices.
"""

import csv
import functools
from collections.abc import Mapping
from importlib import resources

import attrs

KINDS = {1: "net", 2: "blk", 3: "console", 4: "entropy", 5: "balloon", 18: "input", 19: "vsock", 34: "i2c", 41: "gpio"}
PCI = "pci"  # the kind of a function that is no virtio device
SHORT = {"rng": "entropy", "con": "console", "bal": "balloon", "inp": "input", "pcifn": PCI}
AREAS = {name: name for name in KINDS.values()} | SHORT
STRICT = ("MUST", "MUST NOT", "DESC")


class NotApplicable(Exception):
    """The reason why a row says nothing about a device in one setup; rules raise it."""


@attrs.frozen(kw_only=True)
class Row:
    """One requirement. *feature* is what has to be negotiated for it to count, as the table has it: ``A+B``, ``!A``."""

    id: str
    section: str
    level: str
    requirement: str
    feature: str
    testable: str

    @property
    def kind(self) -> str:
        """The kind of device that it is about, ``pci`` for functions that are no virtio devices, or nothing."""
        parts = self.id.split(".")
        return AREAS.get(parts[1] if parts[0] in ("d", "dm") else parts[0], "")

    @property
    def strict(self) -> bool:
        """Whether no reason excuses a device: MUST, MUST NOT and facts."""
        return self.level in STRICT


@functools.cache
def rows() -> Mapping[str, Row]:
    """Every row by its id, in the order of the table."""
    text = resources.files(__package__).joinpath("rows.csv").read_text(encoding="utf-8")
    return {row["id"]: Row(**row) for row in csv.DictReader(text.splitlines())}
