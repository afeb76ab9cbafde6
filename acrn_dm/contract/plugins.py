"""The plugin host: finds plugins, loads each under its own guard, and gives the core checked types instead of hooks.

A manager is made by ``make_plugin_manager``, never at import; core code never touches ``pm.hook``.
"""

import contextlib
import importlib
import importlib.metadata
import logging
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

import attrs
import pluggy

from acrn_dm.base.errors import AcrnDmError, ConfigError, HostError, PluginError
from acrn_dm.base.irq import IoEventFd, IrqFd
from acrn_dm.contract import hookspecs
from acrn_dm.contract.options import check_types
from acrn_dm.contract.types import API, BackendType, DeviceType, HypervisorType, Provenance

log = logging.getLogger(__name__)

# Name of the plugin, as shown to people, and its module. The names do not follow when modules move.
BUILTINS = {
    "hypervisors.hsm": "acrn_dm.hypervisors.acrn.hsm",
    "hypervisors.vhm": "acrn_dm.hypervisors.acrn.vhm",
    "hypervisors.kvm": "acrn_dm.hypervisors.kvm.plugin",
    "hypervisors.sim": "acrn_dm.hypervisors.sim.plugin",
    "virtio.vbs_u": "acrn_dm.backends.vbs_u",
    "vhost.user": "acrn_dm.backends.user.backend",
    "devices.hostbridge": "acrn_dm.devices.hostbridge",
    "devices.i440fx": "acrn_dm.devices.i440fx",
    "devices.lpc": "acrn_dm.devices.lpc",
    "devices.virtio_net": "acrn_dm.devices.virtio_net",
    "devices.virtio_blk": "acrn_dm.devices.virtio_blk",
    "devices.virtio_console": "acrn_dm.devices.virtio_console",
}

R = TypeVar("R", DeviceType, BackendType, HypervisorType)


@contextlib.contextmanager
def blame(provenance: str) -> Iterator[None]:
    """Around a plugin's code: what it raises by mistake becomes a PluginError that names *provenance*."""
    try:
        yield
    except AcrnDmError:
        raise
    except Exception as e:
        raise PluginError(f"{type(e).__name__}: {e}", provenance=provenance) from e


class _Pluggy(pluggy.PluginManager):
    """A manager that looks at attributes with our prefix only: the rest of a plugin is none of our business."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return super().parse_hookimpl_opts(plugin, name) if name.startswith("acrn_dm_") else None


class _Entry(Protocol):
    """An ``importlib.metadata.EntryPoint``, as far as it is used; its ``dist`` may be missing."""

    @property
    def name(self) -> str: ...
    def load(self) -> object: ...


@attrs.define(eq=False)
class PluginManager:
    """The loaded plugins of one machine. ``problems`` are plugins that failed to load and were left out."""

    _pm: pluggy.PluginManager = attrs.field(repr=False)
    _provenance: dict[str, Provenance] = attrs.field(factory=dict)
    problems: list[PluginError] = attrs.field(factory=list)

    def register(self, plugin: object, provenance: Provenance) -> None:
        """Add *plugin* (a module or an object). Raises PluginError for hooks that do not exist or have wrong
        arguments.
        """
        name = provenance.plugin
        if self._pm.has_plugin(name):
            raise PluginError(f"the name is taken by {self._provenance[name]}", provenance=str(provenance))
        self._provenance[name] = provenance
        try:
            self._pm.register(plugin, name=name)
            unknown = [
                h for h in vars(self._pm.hook) if h.startswith("acrn_dm_") and not getattr(self._pm.hook, h).spec
            ]
            if unknown:
                raise PluginError(f"there is no hook {unknown[0]!r}", provenance=str(provenance), hook=unknown[0])
        except (pluggy.PluginValidationError, PluginError) as e:
            self._forget(plugin, name)
            if isinstance(e, PluginError):
                raise
            raise PluginError(" ".join(str(e).split()), provenance=str(provenance)) from e

    def register_builtins(self, builtins: Mapping[str, str]) -> None:
        """Import and add those of *builtins* (as ``BUILTINS``) that are not there yet. Raises PluginError."""
        for name, module in builtins.items():
            if not self._pm.has_plugin(name):
                self.register(importlib.import_module(module), Provenance(plugin=name))

    def load_entry_points(self, only: Collection[str] | None, entries: Iterable[_Entry] | None = None) -> None:
        """Load installed plugins by entry point, each under its own guard; *only* restricts to these names."""
        found = sorted(
            importlib.metadata.entry_points(group=hookspecs.PROJECT) if entries is None else entries,
            key=lambda e: e.name,
        )
        absent = sorted(set(only or ()) - {e.name for e in found})
        if absent:
            known = ", ".join(e.name for e in found) or "none"
            raise ConfigError(f"no such plugin is installed; installed: {known}", option="--plugins", value=absent[0])
        for entry in found:
            if only is None or entry.name in only:
                self._load(entry)

    def device_types(self) -> dict[str, DeviceType]:
        """All kinds of devices by name and alias. Raises PluginError, also for an option of a type that nothing can be
        read into.
        """
        types: dict[str, DeviceType] = {}
        owners: dict[str, Provenance] = {}
        for record, owner in self._collect("acrn_dm_device_types", DeviceType):
            try:
                check_types(record.config)
            except Exception as e:  # annotations are the plugin's code: looking at them may raise anything
                text = f"{record.name}: {e}"
                raise PluginError(text, provenance=str(owner), hook="acrn_dm_device_types") from e
            for name in (record.name, *record.aliases):
                self._claim(owners, name, owner, "device type")
                types[name] = record
        return types

    def backend_types(self) -> list[BackendType]:
        """All backends. Raises PluginError for two of one name for one kind of device."""
        owners: dict[str, Provenance] = {}
        records = []
        for record, owner in self._collect("acrn_dm_backend_types", BackendType):
            for kind in record.kinds:
                self._claim(owners, f"{record.name} for {kind}", owner, "backend type")
            records.append(record)
        return records

    def hypervisor_types(self) -> dict[str, HypervisorType]:
        """All hypervisors by name. Raises PluginError."""
        owners: dict[str, Provenance] = {}
        types = {}
        for record, owner in self._collect("acrn_dm_hypervisor_types", HypervisorType):
            self._claim(owners, record.name, owner, "hypervisor type")
            types[record.name] = record
        return types

    def provider(self, record: object) -> Provenance | None:
        """Who offered *record* (as returned above)."""
        return self._providers.get(id(record))

    _providers: dict[int, Provenance] = attrs.field(factory=dict, repr=False)

    def ioeventfd(self, vm: object, binding: IoEventFd, assign: bool) -> None:
        """Register or unregister a kick through the hook. Raises HostError, and nothing else, also when no plugin did
        it; what could not be registered is not left half registered.
        """
        self._bind("acrn_dm_vhm_ioeventfd", vm, binding, assign)

    def irqfd(self, vm: object, binding: IrqFd, assign: bool) -> None:
        """Register or unregister a call through the hook, as ``ioeventfd``."""
        self._bind("acrn_dm_vhm_irqfd", vm, binding, assign)

    def add_options(self, parser: object) -> None:
        """Let plugins add command-line options to *parser*. Raises PluginError naming whose hook failed."""
        hook = self._pm.hook.acrn_dm_add_options
        try:
            hook.call_historic(kwargs={"parser": parser})
        except Exception as e:
            owner = self._guilty(hook, e)
            raise PluginError(f"{type(e).__name__}: {e}", provenance=owner, hook="acrn_dm_add_options") from e

    def observe(self, hook: str, **arguments: object) -> None:
        """Call an observer hook, each implementation under its own guard, so that one cannot starve the next."""
        caller = getattr(self._pm.hook, hook)
        plugins = list(dict.fromkeys(impl.plugin for impl in caller.get_hookimpls()))
        for plugin in plugins:
            others = [p for p in plugins if p is not plugin]
            try:
                self._pm.subset_hook_caller(hook, remove_plugins=others)(**arguments)
            except Exception as e:
                log.error("%s", PluginError(f"{type(e).__name__}: {e}", provenance=self._who(plugin), hook=hook))

    def _collect(self, hook: str, kind: type[R]) -> Iterable[tuple[R, Provenance]]:
        for impl in getattr(self._pm.hook, hook).get_hookimpls():
            owner = self._provenance[impl.plugin_name]
            try:
                records = list(impl.function())
            except AcrnDmError:
                raise
            except Exception as e:
                raise PluginError(f"{type(e).__name__}: {e}", provenance=str(owner), hook=hook) from e
            for record in records:
                if not isinstance(record, kind):
                    text = f"returned {type(record).__name__}, not {kind.__name__}"
                    raise PluginError(text, provenance=str(owner), hook=hook)
                if record.api > API:
                    text = f"{record.name!r} needs plugin interface {record.api}; this acrn_dm has {API}"
                    raise PluginError(text, provenance=str(owner), hook=hook)
                self._providers[id(record)] = owner
                yield record, owner

    def _claim(self, owners: dict[str, Provenance], name: str, owner: Provenance, what: str) -> None:
        if name in owners:
            raise PluginError(f"{what} {name!r} is already provided by {owners[name]}", provenance=str(owner))
        owners[name] = owner

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
        except Exception as e:  # devices go on without the eventfd, as after any HostError
            raise HostError(f"{caller.name}: {binding}: {self._guilty(caller, e)}: {type(e).__name__}: {e}") from e
        if not done:
            why = "vetoed by a plugin" if done is False else "no plugin serves this hypervisor"
            raise HostError(f"{caller.name}: {binding}: {why}")

    def _guilty(self, hook: pluggy.HookCaller, error: Exception) -> str:
        return next((str(self._provenance[impl.plugin_name]) for impl in self._raised_in(hook, error)), "a plugin")

    def _raised_in(self, hook: pluggy.HookCaller, error: Exception) -> Iterator[pluggy.HookImpl]:
        """Implementations of *hook* that *error* came through: a call of all does not say, but the traceback has their
        code.
        """
        codes = {id(frame.f_code) for frame, _ in traceback.walk_tb(error.__traceback__)}
        return (i for i in hook.get_hookimpls() if id(getattr(i.function, "__code__", None)) in codes)

    def _load(self, entry: _Entry) -> None:
        dist = getattr(entry, "dist", None)
        provenance = Provenance(
            plugin=entry.name,
            distribution=dist.name if dist is not None else "unknown distribution",
            version=dist.version if dist is not None else "",
        )
        try:
            self.register(entry.load(), provenance)
        except PluginError as e:
            self.problems.append(e)
        except Exception as e:  # a plugin's import may raise anything
            self.problems.append(PluginError(f"{type(e).__name__}: {e}", provenance=str(provenance), hook=None))

    def _forget(self, plugin: object, name: str) -> None:
        del self._provenance[name]
        if self._pm.has_plugin(name):
            self._pm.unregister(plugin)
        for hook in [h for h in vars(self._pm.hook) if h.startswith("acrn_dm_")]:
            if not getattr(self._pm.hook, hook).spec:
                delattr(self._pm.hook, hook)

    def _who(self, plugin: object) -> str:
        return str(self._provenance[self._pm.get_name(plugin) or "?"])


def make_plugin_manager(
    *,
    builtins: Mapping[str, str] = BUILTINS,
    entry_points: bool = True,
    only: Collection[str] | None = None,
    extra: Iterable[object] = (),
) -> PluginManager:
    """Make a manager: built-in modules, then *extra* objects, then installed plugins (``--no-plugins``: none;
    ``--plugins``: *only*).
    """
    pm = _Pluggy(hookspecs.PROJECT)
    pm.add_hookspecs(hookspecs)
    manager = PluginManager(pm)
    manager.register_builtins(builtins)
    for i, plugin in enumerate(extra):
        manager.register(
            plugin, Provenance(plugin=getattr(plugin, "__name__", f"extra-{i}"), distribution="given by the caller")
        )
    if entry_points:
        manager.load_entry_points(only)
    return manager
