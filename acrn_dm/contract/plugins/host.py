"""The manager of one machine's plugins.

It is made by ``make_plugin_manager``, never at import; core code never touches ``pm.hook``.
"""

import contextlib
import functools
import importlib
import inspect
import itertools
import logging
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import pluggy

from acrn_dm.base.errors import ConfigError, HostError, PluginError
from acrn_dm.base.files.installed import entry_points_of
from acrn_dm.base.irq import IoEventFd, IrqFd
from acrn_dm.base.records import define
from acrn_dm.contract import hookspecs
from acrn_dm.contract.options import did_you_mean
from acrn_dm.contract.plugins import deferred, offers
from acrn_dm.contract.plugins.builtins import BUILTINS, OFFERED
from acrn_dm.contract.plugins.deferred import Deferred, Waiting
from acrn_dm.contract.plugins.entry import Entry, provenance_of
from acrn_dm.contract.plugins.guard import faulty, told
from acrn_dm.contract.plugins.offers import Offers, unusable
from acrn_dm.contract.plugins.selection import Selection
from acrn_dm.contract.types import (
    BackendType,
    BlockDriverType,
    DeviceType,
    HypervisorType,
    PacketDriverType,
    Provenance,
)

log = logging.getLogger(__name__)

PREFIX = "acrn_dm_"  # of all hooks
ADD_OPTIONS = "acrn_dm_add_options"

R = TypeVar("R", DeviceType, BackendType, HypervisorType, BlockDriverType, PacketDriverType)


class _Pluggy(pluggy.PluginManager):
    """A manager that looks at attributes with our prefix only: the rest of a plugin is none of our business."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return super().parse_hookimpl_opts(plugin, name) if name.startswith(PREFIX) else None


@define(eq=False)
class PluginManager:
    """The loaded plugins of one machine, and those that wait until one of their devices is asked for
    (``deferred``). ``problems`` are plugins that failed to load and were left out.
    """

    _pm: pluggy.PluginManager = attrs.field(repr=False)
    _provenance: dict[str, Provenance] = attrs.field(factory=dict)
    problems: list[PluginError] = attrs.field(factory=list)
    failed: list[Provenance] = attrs.field(factory=list)  # those that ``problems`` are about
    left_out: list[Provenance] = attrs.field(factory=list)  # by the user's wish
    choice: Selection | None = None  # which of the installed ones are loaded; None: none of them
    _parsers: list[object] = attrs.field(factory=list, repr=False)  # that options were added to
    _offers: dict[str, Offers[Any]] = attrs.field(factory=dict, repr=False)  # by hook, once they were asked for
    _providers: dict[int, Provenance] = attrs.field(factory=dict, repr=False)
    _waiting: Waiting = attrs.field(factory=Waiting, repr=False)
    _ranks: dict[str, int] = attrs.field(factory=dict, repr=False)  # the order in which plugins became known
    _count: Iterator[int] = attrs.field(factory=itertools.count, repr=False)

    def register(self, plugin: object, provenance: Provenance) -> None:
        """Add *plugin* (a module or an object). Raises PluginError for hooks that do not exist or have wrong
        arguments.
        """
        name = provenance.plugin
        owner = self._provenance.get(name) or self._waiting.origin(name)
        if owner is not None:
            raise PluginError(f"the name is taken by {owner}", provenance=str(provenance))
        self._provenance[name] = provenance
        self._ranks.setdefault(name, next(self._count))
        try:
            self._pm.register(plugin, name=name)
            unknown = [h for h in vars(self._pm.hook) if h.startswith(PREFIX) and not getattr(self._pm.hook, h).spec]
            if unknown:
                text = f"there is no hook {unknown[0]!r}; {did_you_mean(unknown[0], hook_names())}"
                raise PluginError(text.rstrip("; "), provenance=str(provenance), hook=unknown[0])
            self._add_options(plugin, self._parsers)
        except BaseException as e:
            self._forget(plugin, name)
            raise (_signature(e, provenance) or faulty(e, str(provenance))) from e
        for hook, offered in self._offers.items():  # what was asked for before: this one's belongs to it, too
            self._collect(hook, offered, self._impls(hook, plugin))

    def register_builtins(self, builtins: Mapping[str, str], without: Collection[str] = ()) -> None:
        """Add those of *builtins* (as ``BUILTINS``) that are not there yet, but for *without*; those with devices are
        imported when one of these is asked for. Raises PluginError.
        """
        for name, module in builtins.items():
            origin = Provenance(plugin=name)
            if name in without:
                self.left_out.append(origin)
            elif name not in self._ranks:
                register = functools.partial(self._register_builtin, module, origin)
                if name in OFFERED:
                    self._wait(Deferred(origin, OFFERED[name], register))
                else:
                    register()

    def _register_builtin(self, module: str, origin: Provenance) -> None:
        plugin = importlib.import_module(module)
        if not self._pm.is_registered(plugin):  # it may be there by another name
            self.register(plugin, origin)

    def _wait(self, plugin: Deferred) -> None:
        self._ranks[plugin.origin.plugin] = next(self._count)
        self._waiting.put(plugin)

    def load_devices(self, names: Iterable[str]) -> None:
        """Load the plugins that offer devices of these *names*: those that say so, and where nobody does, all."""
        for name in names:
            told = self._waiting.offering(name)
            self._waiting.register(told)
            if not told and not self._offered_devices.knows(name):
                self.load_all()

    def load_entry_points(
        self,
        only: Collection[str] | None,
        entries: Iterable[Entry] | None = None,
        *,
        selection: Selection | None = None,
        declared: Iterable[Entry] = (),
    ) -> None:
        """Load installed plugins by entry point, each under its own guard; *only*, or *selection*, restricts to some.
        *declared* are those of ``deferred.GROUP``: whose devices stand there waits for them. Raises ConfigError for a
        name that no plugin has.
        """
        if entries is None:
            installed = entry_points_of([hookspecs.PROJECT, deferred.GROUP])
            entries, declared = installed[hookspecs.PROJECT], installed[deferred.GROUP]
        found = sorted(entries, key=lambda e: e.name)
        origins = [provenance_of(entry) for entry in found]
        self.choice = chosen = selection or Selection(only=None if only is None else frozenset(only))
        chosen.check({o.plugin: o.distribution for o in origins}, [o.plugin for o in self.left_out])
        for entry, origin in zip(found, origins, strict=True):
            if not chosen.takes(origin.plugin, origin.distribution):
                self.left_out.append(origin)
                continue
            devices = deferred.devices_of(entry, declared)
            if devices and origin.plugin not in self._ranks:
                self._wait(Deferred(origin, devices, functools.partial(self._load, entry, origin, asked=True)))
            else:
                self._load(entry, origin)

    def load_all(self) -> None:
        """Load the plugins that wait: for questions about all, and for names that nobody is known to offer."""
        self._waiting.register_all()

    @property
    def loaded(self) -> tuple[tuple[Provenance, object], ...]:
        """The plugins, all of them loaded now, and the module or object of each."""
        self.load_all()
        return tuple((origin, self._pm.get_plugin(name)) for name, origin in self._provenance.items())

    @property
    def devices(self) -> Offers[DeviceType]:
        """The kinds of devices that are offered by all plugins."""
        self.load_all()
        return self._offered_devices

    @property
    def backends(self) -> Offers[BackendType]:
        """The backends that are offered by all plugins."""
        self.load_all()
        return self._offered_backends

    @property
    def _offered_devices(self) -> Offers[DeviceType]:
        return self._collected("acrn_dm_device_types", "device", DeviceType, offers.device_names)

    @property
    def _offered_backends(self) -> Offers[BackendType]:
        return self._collected("acrn_dm_backend_types", "backend", BackendType, offers.backend_names)

    @property
    def hypervisors(self) -> Offers[HypervisorType]:
        """The hypervisors that are offered. Raises nothing."""
        return self._collected("acrn_dm_hypervisor_types", "hypervisor", HypervisorType, offers.hypervisor_names)

    @property
    def block_drivers(self) -> Offers[BlockDriverType]:
        """The block drivers that are offered by all plugins."""
        self.load_all()
        return self._offered_block_drivers

    @property
    def packet_drivers(self) -> Offers[PacketDriverType]:
        """The packet drivers that are offered by all plugins."""
        self.load_all()
        return self._offered_packet_drivers

    @property
    def _offered_block_drivers(self) -> Offers[BlockDriverType]:
        return self._collected("acrn_dm_block_driver_types", "block driver", BlockDriverType, offers.driver_names)

    @property
    def _offered_packet_drivers(self) -> Offers[PacketDriverType]:
        return self._collected("acrn_dm_packet_driver_types", "packet driver", PacketDriverType, offers.driver_names)

    def block_driver(self, name: str) -> BlockDriverType | None:
        """The block driver *name*; None and errors as ``device_type``."""
        self._load_drivers(name, self._offered_block_drivers)
        return self._offered_block_drivers.get(name)

    def packet_driver(self, name: str) -> PacketDriverType | None:
        """The packet driver *name*; None and errors as ``device_type``."""
        self._load_drivers(name, self._offered_packet_drivers)
        return self._offered_packet_drivers.get(name)

    def _load_drivers(self, name: str, offered: Offers[Any]) -> None:
        """As ``load_devices``, for a driver."""
        self._waiting.register(self._waiting.offering(name))
        if not offered.knows(name):
            self.load_all()

    @property
    def offers(self) -> tuple[Offers[Any], ...]:
        """The offers of all kinds, by the plugins that are loaded by now."""
        drivers = (self._offered_block_drivers, self._offered_packet_drivers)
        return (self._offered_devices, self._offered_backends, *drivers, self.hypervisors)

    def faults(self) -> list[PluginError]:
        """All that was left out by now, and why: plugins that did not load, hooks that failed, wrong records."""
        return [*self.problems, *(problem for found in self.offers for problem in found.problems)]

    def device_types(self) -> dict[str, DeviceType]:
        """All kinds of devices by name and alias, but for names that two offer."""
        return self.devices.by_name()

    def device_type(self, name: str) -> DeviceType | None:
        """The kind of device *name*; None where nobody offers it. Raises ConfigError for a name that two offer,
        PluginError for one that was refused.
        """
        self.load_devices([name])
        return self._offered_devices.get(name)

    def backend_types(self, wanted: str | None = None) -> list[BackendType]:
        """All backends for the devices that were asked for; where none of them is named *wanted*, those of all plugins.
        One whose name two plugins offer for one kind of device, or which was refused, says so when it is made.
        """
        found = self._offered_backends
        if wanted is not None and not any(offer.record.name == wanted for offer in found.accepted):
            self.load_all()
        clashes = (name for name, claimed in found.contested().items() if not claimed[0].owner.built_in)
        contested = [unusable(name, ConfigError(found.contest(name))) for name in clashes]
        refused = [unusable(f"{name} for *", error) for name, error in found.refused.items()]
        return [*contested, *(offer.record for offer in found.accepted), *refused]

    def hypervisor_types(self) -> dict[str, HypervisorType]:
        """All hypervisors by name; of those whose name two offer the first, which is a built-in one if there is one."""
        return self.hypervisors.first()

    def hypervisor_type(self, name: str) -> HypervisorType | None:
        """The hypervisor *name*; None and errors as ``device_type``."""
        return self.hypervisors.get(name)

    def provider(self, record: object) -> Provenance | None:
        """Who offered *record* (as returned above)."""
        return self._providers.get(id(record))

    def ioeventfd(self, vm: object, binding: IoEventFd, assign: bool) -> None:
        """Register or unregister a kick through the hook. Raises HostError, and nothing else, also when no plugin did
        it; what could not be registered is not left half registered.
        """
        self._bind("acrn_dm_vhm_ioeventfd", vm, binding, assign)

    def irqfd(self, vm: object, binding: IrqFd, assign: bool) -> None:
        """Register or unregister a call through the hook, as ``ioeventfd``."""
        self._bind("acrn_dm_vhm_irqfd", vm, binding, assign)

    def add_options(self, parser: object) -> None:
        """Let plugins add command-line options to *parser*, those that are registered later, too.

        One whose hook fails is left out as a whole, its options with it: what else it offers may need them.
        """
        self._parsers.append(parser)
        for name, origin in list(self._provenance.items()):
            plugin = self._pm.get_plugin(name)
            try:
                self._add_options(plugin, [parser])
            except BaseException as e:
                self.problems.append(faulty(e, str(origin), ADD_OPTIONS))
                self.failed.append(origin)
                self._forget(plugin, name)
                self._offers.clear()

    def add_options_of(self, origin: Provenance, parser: object) -> None:
        """Let the plugin of *origin* alone add its options to *parser*. Raises PluginError."""
        try:
            self._add_options(self._pm.get_plugin(origin.plugin), [parser])
        except BaseException as e:
            raise faulty(e, str(origin), ADD_OPTIONS) from e

    def observe(self, hook: str, **arguments: object) -> None:
        """Call an observer hook, each implementation under its own guard, so that one cannot starve the next."""
        caller = getattr(self._pm.hook, hook)
        plugins = list(dict.fromkeys(impl.plugin for impl in caller.get_hookimpls()))
        for plugin in plugins:
            others = [p for p in plugins if p is not plugin]
            try:
                self._pm.subset_hook_caller(hook, remove_plugins=others)(**arguments)
            except BaseException as e:
                log.error("%s", faulty(e, self._who(plugin), hook))

    def _add_options(self, plugin: object, parsers: Iterable[object]) -> None:
        """Call the hook of *plugin* with each of *parsers*; one that fails has added nothing."""
        impls = self._impls(ADD_OPTIONS, plugin)
        for parser, impl in itertools.product(parsers, impls):
            with getattr(parser, "attempt", contextlib.nullcontext)():
                impl.function(*(parser for _ in impl.argnames))

    def _collected(self, hook: str, what: str, kind: type[R], names: Callable[[R], Sequence[str]]) -> Offers[R]:
        known = self._offers.get(hook)
        if known is None:
            known = self._offers[hook] = Offers(what, hook, kind, names)
            self._collect(hook, known, getattr(self._pm.hook, hook).get_hookimpls())
        return known

    def _impls(self, hook: str, plugin: object) -> list[pluggy.HookImpl]:
        return [i for i in getattr(self._pm.hook, hook).get_hookimpls() if i.plugin is plugin]

    def _collect(self, hook: str, offered: Offers[Any], impls: Iterable[pluggy.HookImpl]) -> None:
        """Add what *impls* offer; whenever it comes, it stands where its plugin does, built-in ones first."""
        offered.collect((self._provenance[impl.plugin_name], impl.function) for impl in impls)
        offered.sort(lambda owner: (not owner.built_in, self._ranks[owner.plugin]))
        self._providers.update((id(offer.record), offer.owner) for offer in offered.accepted)

    def _bind(self, hook: str, vm: object, binding: object, assign: bool) -> None:
        caller = getattr(self._pm.hook, hook)
        try:
            self._ask(caller, vm, binding, assign)
        except HostError as e:
            refused = any(not (impl.wrapper or impl.hookwrapper) for impl in self._raised_in(caller, e))
            if assign and not refused:  # a wrapper may have failed with the hypervisor's work done
                with contextlib.suppress(HostError):
                    self._ask(caller, vm, binding, False)
            raise

    def _ask(self, caller: pluggy.HookCaller, vm: object, binding: object, assign: bool) -> None:
        try:
            done = caller(vm=vm, binding=binding, assign=assign)
        except HostError:
            raise
        except (Exception, SystemExit) as e:  # devices go on without the eventfd, as after any HostError
            raise HostError(f"{caller.name}: {binding}: {self._guilty(caller, e)}: {told(e)}") from e
        if not done:
            why = "vetoed by a plugin" if done is False else "no plugin serves this hypervisor"
            raise HostError(f"{caller.name}: {binding}: {why}")

    def _guilty(self, hook: pluggy.HookCaller, error: BaseException) -> str:
        return next((str(self._provenance[impl.plugin_name]) for impl in self._raised_in(hook, error)), "a plugin")

    def _raised_in(self, hook: pluggy.HookCaller, error: BaseException) -> Iterator[pluggy.HookImpl]:
        """Implementations of *hook* that *error* came through: a call of all does not say, but the traceback has their
        code.
        """
        codes = {id(frame.f_code) for frame, _ in traceback.walk_tb(error.__traceback__)}
        return (i for i in hook.get_hookimpls() if id(getattr(i.function, "__code__", None)) in codes)

    def _load(self, entry: Entry, origin: Provenance, *, asked: bool = False) -> None:
        """Import and add the plugin of *entry*; one that waited to be *asked* for has hooks for that only."""
        try:
            plugin = entry.load()
            if asked:
                deferred.check_hooks(self._hooks(plugin), origin)
            self.register(plugin, origin)
        except BaseException as e:  # a plugin's import may raise anything
            self.problems.append(faulty(e, str(origin)))
            self.failed.append(origin)

    def _hooks(self, plugin: object) -> list[str]:
        return [name for name in dir(plugin) if self._pm.parse_hookimpl_opts(plugin, name) is not None]

    def watch(self, tell: Callable[[str, dict[str, object], str], None]) -> Callable[[], object]:
        """Tell of every call of a hook, but for those that collect types: its name, its arguments, and `` raised ...``
        if it did. Returns what ends that.
        """

        def after(outcome: "pluggy.Result[object]", name: str, _: object, arguments: Mapping[str, object]) -> None:
            error = outcome.exception
            tell(name, dict(arguments), "" if error is None else f" raised {type(error).__name__}: {error}")

        return self._pm.add_hookcall_monitoring(lambda *_: None, after)

    def _forget(self, plugin: object, name: str) -> None:
        del self._provenance[name], self._ranks[name]
        if self._pm.has_plugin(name):
            self._pm.unregister(plugin)
        for hook in [h for h in vars(self._pm.hook) if h.startswith(PREFIX)]:
            if not getattr(self._pm.hook, hook).spec:
                delattr(self._pm.hook, hook)

    def _who(self, plugin: object) -> str:
        return str(self._provenance[self._pm.get_name(plugin) or "?"])


def hook_names() -> list[str]:
    """The names of all hooks."""
    return [name for name in vars(hookspecs) if name.startswith(PREFIX)]


def _signature(error: BaseException, provenance: Provenance) -> PluginError | None:
    """pluggy's complaint about a hook's arguments, in our words: what is wrong, and what there is."""
    if not isinstance(error, pluggy.PluginValidationError):
        return None
    match = re.search(r"for hook '(\w+)'.*Argument\(s\) {(.*)} are declared", " ".join(str(error).split()))
    if match is None:
        return PluginError(" ".join(str(error).split()), provenance=str(provenance))
    known = ", ".join(inspect.signature(getattr(hookspecs, match[1])).parameters) or "none"
    text = f"takes {match[2]}, which the hook has not; it has: {known}"
    return PluginError(text, provenance=str(provenance), hook=match[1])


def make_plugin_manager(
    *,
    builtins: Mapping[str, str] = BUILTINS,
    entry_points: bool = True,
    only: Collection[str] | None = None,
    selection: Selection | None = None,
    extra: Iterable[object] = (),
) -> PluginManager:
    """Make a manager: built-in modules, then *extra* objects, then installed plugins (``--no-plugins``: none;
    ``--plugins``: *only* these, or those of *selection*). Raises ConfigError for a name that no plugin has.
    """
    pm = _Pluggy(hookspecs.PROJECT)
    pm.add_hookspecs(hookspecs)
    manager = PluginManager(pm)
    chosen = selection or Selection(only=None if only is None else frozenset(only))
    manager.register_builtins(builtins, chosen.without)
    for i, plugin in enumerate(extra):
        name = getattr(plugin, "__name__", f"extra-{i}")
        manager.register(plugin, Provenance(plugin=name, distribution="given by the caller"))
    if entry_points:
        manager.load_entry_points(None, selection=chosen)
    return manager
