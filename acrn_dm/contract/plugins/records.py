"""The check of a record that a plugin offers: what in it would break later, where nobody knows whose it is."""

from collections.abc import Callable, Collection, Iterator

import attrs

from acrn_dm.contract.options import check_types
from acrn_dm.contract.types import (
    API,
    NAME,
    BackendType,
    BlockDriverType,
    DeviceType,
    HypervisorType,
    PacketDriverType,
)

DriverType = BlockDriverType | PacketDriverType
Record = DeviceType | BackendType | HypervisorType | DriverType


def problem(record: Record) -> str | None:
    """Return what is wrong with *record*, in words for its author; None if nothing is."""
    if not isinstance(record.api, int) or isinstance(record.api, bool):
        return f"{_named(record)}: api is {record.api!r}, not a whole number"
    if record.api > API:
        return f"{record.name!r} needs plugin interface {record.api}; this acrn_dm has {API}"
    fields = next(_fields(record), None)
    if fields is not None:
        return f"{_named(record)}: {fields}"
    return _options(record) if isinstance(record, DeviceType | DriverType) else None


def _named(record: Record) -> str:
    return str(record.name)


def _fields(record: Record) -> Iterator[str]:
    """What is not of the type that the record's class says."""
    if not isinstance(record.summary, str):
        yield f"summary is a {_type(record.summary)}, not text"
    if isinstance(record, DeviceType):
        yield from _names("aliases", record.aliases)
        if record.drivers not in (None, "block", "packet"):
            yield f"drivers is {record.drivers!r}, not 'block' or 'packet'"
    if isinstance(record, DeviceType | DriverType):
        if not isinstance(record.config, type):
            yield f"config is a {_type(record.config)}, not a class of options"
    elif isinstance(record, BackendType):
        yield from _names("kinds", record.kinds, also=("*",))
        yield from _callables(probe=record.probe)
    else:
        yield from _names("takes", record.takes)
        yield from _callables(probe=record.probe, open=record.open, check=record.check)
        yield from (
            f"{name} is a {_type(value)}, not a whole number"
            for name, value in (("ioapic_pins", record.ioapic_pins), ("rank", record.rank))
            if not isinstance(value, int)
        )
    if not isinstance(record, HypervisorType):
        yield from _callables(create=record.create)


def _names(field: str, value: object, also: Collection[str] = ()) -> Iterator[str]:
    if isinstance(value, str) or not isinstance(value, Collection):
        yield f"{field} is {value!r}, not a list of names; write ({value!r},)"
        return
    for name in value:
        if name not in also and (not isinstance(name, str) or not NAME.match(name)):
            yield f"{field} has {name!r}, which is not a name: lower-case letters, digits, '-', '_', '.'"


def _callables(**fields: "Callable[..., object]") -> Iterator[str]:
    for name, value in fields.items():
        if not callable(value):
            yield f"{name} is a {_type(value)}, which can't be called"


def _options(record: DeviceType | DriverType) -> str | None:
    config = record.config
    if not attrs.has(config) and not hasattr(config, "from_string") and not hasattr(config, "from_mapping"):
        return f"{record.name}: config is {config.__name__}, which is no attrs class; declare it with @attrs.frozen"
    try:
        check_types(config)
    except Exception as e:  # annotations are the plugin's code: looking at them may raise anything
        return f"{record.name}: {e}"
    return None


def _type(value: object) -> str:
    return type(value).__name__
