"""The choice of a driver by ``driver=NAME`` among a device's options: found, its options read, made; not opened.

Options that the device keeps with a driver go to the device, all others are the driver's.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Never, cast

import attrs

from acrn_dm.base.errors import ConfigError, PluginError
from acrn_dm.base.records import frozen
from acrn_dm.contract import options
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.drivers.block import BlockDriver
from acrn_dm.contract.drivers.packet import PacketDriver
from acrn_dm.contract.option_text import split_raw, unquoted
from acrn_dm.contract.plugins import Offers, PluginManager, blame
from acrn_dm.contract.types import (
    BUILT_IN,
    BlockDriverType,
    ChosenDriver,
    DeviceContext,
    DeviceType,
    DriverContext,
    PacketDriverType,
)

KEY = "driver"
FILE = "file"  # the block driver that a bare path means

DriverType = BlockDriverType | PacketDriverType
MADE = {"block": BlockDriver, "packet": PacketDriver}


@frozen(kw_only=True)
class Wish:
    """A driver that somebody asked for: its kind and its options, as text or as a table. *where* names them."""

    sort: str
    name: str
    options: str | Mapping[str, object]
    where: str

    def make(self, plugins: PluginManager, context: DriverContext) -> ChosenDriver:
        """The driver, not open. Raises ConfigError, PluginError."""
        record = find(plugins, self.sort, self.name, self.where)
        owner = plugins.provider(record)
        who = f"{self.where}: driver {self.name}"
        blamed = f"{context.device}: driver {self.name}"
        if owner is not None and owner.distribution != BUILT_IN:
            blamed += f" ({owner})"
        below = functools.partial(_below, plugins, context, self.where)
        with blame(f"{owner}: driver {self.name}"):
            chosen = _options(record, self.options, who)
            made = record.create(cast(Never, chosen), attrs.evolve(context, over=below))
        if not isinstance(made, MADE[self.sort]):
            text = f"made a {type(made).__name__}, which is no {MADE[self.sort].__name__}"
            raise PluginError(text, provenance=f"{owner}: driver {self.name}")
        return ChosenDriver(name=self.name, driver=made, blamed=blamed)


def offers(plugins: PluginManager, sort: str) -> Offers[Any]:
    """The drivers of one sort that are offered."""
    return plugins.block_drivers if sort == "block" else plugins.packet_drivers


def find(plugins: PluginManager, sort: str, name: str, where: str) -> DriverType:
    """The driver *name*. Raises ConfigError naming those there are, PluginError for one that was refused."""
    one = plugins.block_driver if sort == "block" else plugins.packet_driver
    try:
        record: DriverType | None = one(name)
    except ConfigError as e:
        raise ConfigError(str(e), option=where) from None
    if record is None:
        known = sorted(offers(plugins, sort).claims)
        text = f"there is no {sort} driver {name!r}; {options.did_you_mean(name, known)}known: {', '.join(known)}"
        raise ConfigError(text, option=where)
    return record


def keeps(kind: DeviceType) -> frozenset[str]:
    """The options that devices of *kind* keep when they have a driver."""
    replaced = getattr(kind.config, "NOT_WITH_DRIVER", ())
    fields = attrs.fields(kind.config) if attrs.has(kind.config) else ()
    return frozenset({f.name for f in fields} - set(replaced) | set(getattr(kind.config, "WORDS", ())))


def clashes(record: DriverType, kind: DeviceType) -> list[str]:
    """The options of a driver that nobody could give it: the device has them itself."""
    fields = {f.name for f in attrs.fields(record.config)} if attrs.has(record.config) else set()
    return sorted(fields & keeps(kind))


def take(
    spec: DeviceSpec, kind: DeviceType, plugins: PluginManager | None, where: str
) -> tuple[DeviceSpec, Wish | None]:
    """Return *spec* without what is its driver's, and the driver that it asks for. Raises ConfigError, PluginError."""
    if kind.drivers is None or plugins is None:
        return spec, None
    rest, name, given = _from_text(spec, kind) if spec.table is None else _from_table(spec, kind)
    if name is None:
        return spec, None
    if not isinstance(name, str) or not name:
        raise ConfigError("expected the name of a driver", option=f"{where} {KEY}", value=name or None)
    record = find(plugins, kind.drivers, name, where)
    if clash := clashes(record, kind):
        text = f"its option {clash[0]!r} can't be given: {kind.name} has one of this name"
        raise PluginError(text, provenance=f"{plugins.provider(record)}: driver {name}")
    return rest, Wish(sort=kind.drivers, name=name, options=given, where=where)


def context_of(context: DeviceContext, *, read_only: bool) -> DriverContext:
    """What the driver of the device at *context* may know."""
    return DriverContext(
        device=context.name,
        machine=context.machine,
        read_only=read_only,
        plugin_options=context.plugin_options,
    )


def _from_text(spec: DeviceSpec, kind: DeviceType) -> tuple[DeviceSpec, object, str]:
    mine: list[str] = []
    others: list[str] = []
    kept = keeps(kind)
    for raw in split_raw(spec.text):
        (mine if _key(raw) in kept or not raw else others).append(raw)
    names = [unquoted(raw).partition("=")[2] for raw in mine if _key(raw) == KEY]
    _once(names, spec)
    return attrs.evolve(spec, text=",".join(mine)), names[0] if names else None, ",".join(others)


def _from_table(spec: DeviceSpec, kind: DeviceType) -> tuple[DeviceSpec, object, dict[str, object]]:
    table, kept = dict(spec.table or {}), keeps(kind)
    others = {key: value for key, value in table.items() if key.replace("-", "_") not in kept}
    rest = {key: value for key, value in table.items() if key not in others}
    return attrs.evolve(spec, table=rest), table.get(KEY), others


def _key(raw: str) -> str:
    return raw.partition("=")[0].replace("-", "_")


def _once(names: Sequence[object], spec: DeviceSpec) -> None:
    if len(names) > 1:
        raise ConfigError(f"option {KEY!r} is given twice", option=spec.origin or spec.kind)


def _options(record: DriverType, given: str | Mapping[str, object], who: str) -> object:
    """An instance of the driver's option class, by its own grammar or the common one."""
    own = getattr(record.config, "from_string" if isinstance(given, str) else "from_mapping", None)
    try:
        if own is not None:
            return own(given)
        if isinstance(given, str):
            return options.parse_options(record.config, given, who)
        return options.from_mapping(record.config, given, who)
    except (ConfigError, ValueError, TypeError) as e:
        raise ConfigError(str(e), option=None if str(e).startswith(who) else who) from e


def _below(plugins: PluginManager, context: DriverContext, where: str, text: str) -> BlockDriver:
    """See ``DriverContext.over``."""
    tokens = split_raw(text)
    names = [unquoted(raw).partition("=")[2] for raw in tokens if _key(raw) == KEY]
    if len(names) > 1:
        raise ConfigError(f"option {KEY!r} is given twice", option=where, value=text)
    rest = [raw for raw in tokens if _key(raw) != KEY]
    if not names and rest and "=" not in rest[0]:
        rest[0] = f"path={rest[0]}"
    wish = Wish(sort="block", name=names[0] if names else FILE, options=",".join(rest), where=where)
    made = wish.make(plugins, context).driver
    assert isinstance(made, BlockDriver)
    return made
