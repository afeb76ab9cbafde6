"""The check of a plugin from outside: what acrn-dm thinks of it, a line for each finding."""

import enum
import importlib
import inspect
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import attrs

from acrn_dm.base.errors import AcrnDmError, ConfigError, PluginError
from acrn_dm.base.files.installed import entry_points
from acrn_dm.contract import options
from acrn_dm.contract.drivers.choice import DriverType, clashes
from acrn_dm.contract.hookspecs import PROJECT
from acrn_dm.contract.option_types import option_value
from acrn_dm.contract.options import did_you_mean
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.plugins.deferred import GROUP
from acrn_dm.contract.plugins.entry import provenance_of
from acrn_dm.contract.plugins.host import hook_names
from acrn_dm.contract.types import DeviceType, HypervisorType, Provenance
from acrn_dm.testing import BlockBench, PacketBench, SimMachine
from acrn_dm.testing.conformance import SLOT, conform


class Level(enum.Enum):
    """The weight of a finding; each WRONG one makes the check fail."""

    GOOD = "ok"
    NOTE = "note"
    WRONG = "wrong"


@attrs.frozen
class Finding:
    """One line: what was looked at, and what was seen."""

    level: Level
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.level.value:5} {self.subject}: {' '.join(self.text.split())}"


def check(package: str, texts: Mapping[str, str]) -> Iterator[Finding]:
    """All findings on *package*: a plugin's name, its distribution's, or a module. *texts* are options for its
    devices, by their names; a device that needs some can't be tried without. Raises ConfigError where there is none.
    """
    plugins = make_plugin_manager()
    origins = _wanted(package, plugins)
    faults = [f for f in plugins.faults() if any(f.provenance == str(origin) for origin in origins)]
    for fault in faults:
        yield Finding(Level.WRONG, fault.hook or "loading", fault.reason)
    for origin, plugin in plugins.loaded:
        if origin in origins:
            yield Finding(Level.GOOD, "loading", f"{origin} from {getattr(plugin, '__file__', plugin)}")
            yield from _looked_at(origin, plugin, plugins, texts)


def _wanted(package: str, plugins: PluginManager) -> list[Provenance]:
    """The plugins that *package* means; a module that no entry point names is registered for this. Raises ConfigError,
    PluginError.
    """
    known = [origin for origin, _ in plugins.loaded if not origin.built_in]
    known += plugins.failed
    found = [o for o in known if package in (o.plugin, o.distribution)]
    found += [o for o, plugin in plugins.loaded if not o.built_in and getattr(plugin, "__name__", "") == package]
    if found:
        return found
    origin = Provenance(plugin=package, distribution="not installed")
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as e:
        if e.name != package.partition(".")[0]:
            raise PluginError(f"ModuleNotFoundError: {e}", provenance=str(origin)) from e
        names = ", ".join(sorted(o.plugin for o in known)) or "none"
        hint = did_you_mean(package, [o.plugin for o in known])
        text = f"no plugin, distribution or module of this name; {hint}installed plugins: {names}"
        raise ConfigError(text, option="check", value=package) from None
    plugins.register(module, origin)
    return [origin]


def _looked_at(
    origin: Provenance, plugin: object, plugins: PluginManager, texts: Mapping[str, str]
) -> Iterator[Finding]:
    hooks = [name for name, _ in inspect.getmembers(plugin) if name.startswith(f"{PROJECT}_") and _hooked(plugin, name)]
    if hooks:
        yield Finding(Level.GOOD, "hooks", ", ".join(hooks))
    else:
        yield Finding(Level.WRONG, "hooks", "none; a hook is a function named acrn_dm_... under @hookimpl")
    for name in (n for n in hook_names() if hasattr(plugin, n) and not _hooked(plugin, n)):
        yield Finding(Level.WRONG, name, "is not under @hookimpl, so it is never called")
    for offers in plugins.offers:
        for name, claimed in offers.claims.items():
            if any(offer.owner is origin for offer in claimed):
                clash = len(claimed) > 1
                text = offers.contest(name) if clash else f"offers the {offers.what}"
                yield Finding(Level.WRONG if clash else Level.GOOD, name, text)
    yield from _told(origin, {name for name, c in plugins.devices.claims.items() if any(o.owner is origin for o in c)})
    for hypervisor in (o.record for o in plugins.hypervisors.accepted if o.owner is origin):
        yield _probed(hypervisor)
    for kind in (o.record for o in plugins.devices.accepted if o.owner is origin):
        yield from _options(kind)
        yield from _tried(kind, plugin, texts.get(kind.name))
    for sort, drivers in (("block", plugins.block_drivers), ("packet", plugins.packet_drivers)):
        for record in (o.record for o in drivers.accepted if o.owner is origin):
            yield from _options(record)
            yield from _tried_driver(sort, record, plugin, texts.get(record.name))


def _told(origin: Provenance, offered: Collection[str]) -> Iterator[Finding]:
    """Whether the devices that the distribution's entry points tell of are those *offered*."""
    entries = [(entry.name, provenance_of(entry).distribution) for entry in entry_points(GROUP)]
    told = {name for name, distribution in entries if distribution == origin.distribution}
    for name in sorted(told - set(offered)):
        yield Finding(Level.WRONG, name, f"is told of in the entry points of group {GROUP}, and not offered")
    for name in sorted(set(offered) - told if told else ()):
        text = f"is missing in the entry points of group {GROUP}: whoever asks for it waits for all plugins"
        yield Finding(Level.WRONG, name, text)


def _hooked(plugin: object, name: str) -> bool:
    return hasattr(getattr(plugin, name, None), f"{PROJECT}_impl")


def _probed(kind: HypervisorType) -> Finding:
    try:
        reason = kind.probe()
    except (Exception, SystemExit) as e:
        return Finding(Level.WRONG, kind.name, f"probe raises {type(e).__name__}: {e}")
    if reason is not None and not isinstance(reason, str):
        return Finding(
            Level.WRONG, kind.name, f"probe returned {type(reason).__name__}, not the reason as text or None"
        )
    return Finding(Level.GOOD, kind.name, f"can't be used here: {reason}" if reason else "can be used here")


def _options(kind: DeviceType | DriverType) -> Iterable[Finding]:
    """What the help shows, and whether the defaults are what the options' types say."""
    if not attrs.has(kind.config):
        return
    lines = {line.name: line for line in options.describe(kind.config)}
    hints = typing.get_type_hints(kind.config)
    for field in attrs.fields(kind.config):
        if field.name not in lines:
            continue
        if not lines[field.name].text:
            yield Finding(Level.WRONG, f"{kind.name} {field.name}", "has no help text")
        problem = _default_problem(field, hints[field.name])
        if problem is not None:
            yield Finding(Level.WRONG, f"{kind.name} {field.name}", problem)
    yield Finding(Level.GOOD, f"{kind.name} options", ", ".join(lines) or "none")


def _default_problem(field: "attrs.Attribute[object]", hint: object) -> str | None:
    """Why the default is none that the user could have given."""
    default = field.default
    if default is attrs.NOTHING or default is None or default == "" or field.converter is not None:
        return None
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class; a function for its type stubs
        return None
    try:
        read = option_value(hint).read(str(default) if isinstance(default, Path) else default, field.name)
    except (ConfigError, TypeError) as e:
        return f"the default {default!r} is no value of the option: {e}"
    if type(read) is not type(default) and not isinstance(read, float):
        return f"the default {default!r} is a {type(default).__name__}, and values are {type(read).__name__}"
    return None


def _required(kind: DeviceType | DriverType) -> list[str]:
    lines = options.describe(kind.config) if attrs.has(kind.config) else ()
    return [line.name for line in lines if line.default == "required"]


def _untried(kind: DeviceType | DriverType, text: str | None) -> str | None:
    """Why it can't be tried with the options *text*, if there are any."""
    required = _required(kind)
    if not required or text is not None:
        return None
    return f"not tried: option {required[0]!r} is required; --options '{kind.name}:{required[0]}=...' tries it"


def _tried_driver(sort: str, record: DriverType, plugin: object, text: str | None) -> Iterable[Finding]:
    """The driver opened and closed; options that nobody could give it."""
    name = f"{record.name} driver"
    for kind in (k for k in make_plugin_manager(entry_points=False).device_types().values() if k.drivers == sort):
        if clash := clashes(record, kind):
            yield Finding(
                Level.WRONG, name, f"{kind.name} has an option {clash[0]!r} itself, so the driver's can't be had"
            )
            return
    if (required := _untried(record, text)) is not None:
        yield Finding(Level.NOTE, name, required)
        return
    bench = BlockBench if sort == "block" else PacketBench
    try:
        with bench(f"{record.name},{text or ''}", plugins=[plugin]) as tried:
            missing = tried.problems
            if isinstance(tried, BlockBench):
                tried.read(0, 512)
    except (AcrnDmError, OSError) as e:
        yield Finding(Level.WRONG, name, f"it can't be used: {e}")
        return
    said = f"not all is here: {'; '.join(missing)}" if missing else "opens, and is closed again"
    yield Finding(Level.NOTE if missing else Level.GOOD, name, said)


def _tried(kind: DeviceType, plugin: object, text: str | None) -> Iterable[Finding]:
    """The device made, and held to the specifications."""
    if (required := _untried(kind, text)) is not None:
        yield Finding(Level.NOTE, f"{kind.name} conformance", required)
        return
    try:
        with SimMachine(plugins=[plugin]) as machine:
            missing = machine.add(kind, text or "", slot=SLOT).check()
        if missing:
            yield Finding(Level.NOTE, f"{kind.name} conformance", f"not tried: {'; '.join(missing)}")
            return
        report = conform(lambda machine: machine.add(kind, text or "", slot=SLOT), name=kind.name, plugins=[plugin])
    except (AcrnDmError, AssertionError) as e:
        yield Finding(Level.WRONG, f"{kind.name} conformance", f"it can't be started: {e}")
        return
    except Exception as e:
        yield Finding(Level.WRONG, f"{kind.name} conformance", f"starting it raises {type(e).__name__}: {e}")
        return
    *broken, counts = report.text().splitlines()
    for line in broken:
        yield Finding(Level.WRONG, f"{kind.name} conformance", line)
    yield Finding(Level.WRONG if broken else Level.GOOD, f"{kind.name} conformance", counts)
