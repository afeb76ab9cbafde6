"""Finds what a kernel complains about, and whether it complains of more than under another machine.

Input is what `dmesg -r` prints: lines of <priority>[seconds] text, with priority = facility * 8 + level as in syslog.
"""

import re

import attrs

WARNING = 4  # syslog level: 0 emergency ... 3 error, 4 warning, 5 notice, 6 info, 7 debug
_KERNEL = 0  # syslog facility
_LINE = re.compile(r"<(\d+)>\[ *(\d+\.\d+)\] ?(.*)")
_SUBJECT = re.compile(r"virtio|pci|acpi|aml\b|\bmsi", re.IGNORECASE)
# What differs between two machines, or two boots, without a difference in meaning. The longest forms first.
_VARIABLE = re.compile(
    r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.\d|0x[0-9a-f]+|\b(?=[a-f]*\d)[0-9a-f]{4,}\b|\d+", re.IGNORECASE
)


@attrs.frozen(kw_only=True)
class Record:
    """One line of the kernel's log."""

    level: int
    seconds: float
    text: str


def parse(log: str) -> list[Record]:
    """The kernel's own lines in a raw log; user space's (other facilities) and anything else are left out."""
    records = []
    for line in log.splitlines():
        found = _LINE.match(line)
        if found and int(found[1]) >> 3 == _KERNEL:
            records.append(Record(level=int(found[1]) & 7, seconds=float(found[2]), text=found[3].rstrip()))
    return records


def device_warnings(log: str) -> list[str]:
    """Warnings and errors about virtio, PCI or ACPI, in the order of the log."""
    return [record.text for record in parse(log) if record.level <= WARNING and _SUBJECT.search(record.text)]


def additional_warnings(log: str, reference: str) -> list[str]:
    """Device warnings of ``log`` that ``reference`` has none like: equal but for numbers and addresses."""
    known = {_shape(text) for text in device_warnings(reference)}
    return [text for text in device_warnings(log) if _shape(text) not in known]


def additional_lines(log: str, reference: str) -> list[str]:
    """Lines of ``log`` of level 4 and below, about whatever, that ``reference`` has none like at such a level."""
    known = {_shape(record.text) for record in parse(reference) if record.level <= WARNING}
    return [record.text for record in parse(log) if record.level <= WARNING and _shape(record.text) not in known]


def _shape(text: str) -> str:
    return _VARIABLE.sub("#", text)
