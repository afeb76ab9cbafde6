"""Plugins that are not imported yet: those of which it is known, without, which devices they offer.

Of a built-in plugin ``builtins.OFFERED`` says it, of an installed one the entry points of group ``acrn_dm.devices``: a
name for each device or driver, with the value that the plugin has in group ``acrn_dm``. Such a plugin has the hooks for
devices, their backends and their drivers, and no others, for a start that uses none of them does without it.
"""

from collections.abc import Callable, Collection, Iterable

import attrs

from acrn_dm.base.errors import PluginError
from acrn_dm.base.records import define
from acrn_dm.contract.hookspecs import PROJECT
from acrn_dm.contract.plugins.entry import Entry
from acrn_dm.contract.types import Provenance

GROUP = f"{PROJECT}.devices"
HOOKS = frozenset(f"{PROJECT}_{what}_types" for what in ("device", "backend", "block_driver", "packet_driver"))


@define(eq=False)
class Deferred:
    """One plugin, and the names of its devices; *register* imports and adds it, under a guard of its own."""

    origin: Provenance
    devices: Collection[str]
    register: Callable[[], None]


@define(eq=False)
class Waiting:
    """The plugins of one machine that wait to be asked for, by their names."""

    _plugins: dict[str, Deferred] = attrs.field(factory=dict)

    def origin(self, name: str) -> Provenance | None:
        """Where the plugin *name* comes from, if it waits."""
        return self._plugins[name].origin if name in self._plugins else None

    def put(self, plugin: Deferred) -> None:
        """Have *plugin* wait."""
        self._plugins[plugin.origin.plugin] = plugin

    def offering(self, device: str) -> list[str]:
        """The plugins that say they offer *device*."""
        return [name for name, plugin in self._plugins.items() if device in plugin.devices]

    def register(self, names: Iterable[str]) -> None:
        """Import and add those of *names*; they wait no longer."""
        for name in names:
            self._plugins.pop(name).register()

    def register_all(self) -> None:
        """Import and add what is left."""
        self.register(list(self._plugins))


def devices_of(entry: Entry, declared: Iterable[Entry]) -> list[str]:
    """The devices that the plugin of *entry* is said to offer by *declared*, the entry points of ``GROUP``."""
    return [d.name for d in declared if _origin(d) == _origin(entry)]


def _origin(entry: Entry) -> tuple[object, object]:
    """What two entry points of one plugin have in common: their distribution and their value."""
    dist = getattr(entry, "dist", None)
    return getattr(dist, "name", None), getattr(entry, "value", entry)


def check_hooks(hooks: Collection[str], provenance: Provenance) -> None:
    """Raise PluginError where a plugin that may not be imported has *hooks* that every start would call."""
    for hook in sorted(set(hooks) - HOOKS):
        text = f"every start needs it, so leave the entry points of group {GROUP} out"
        raise PluginError(text, provenance=str(provenance), hook=hook)
