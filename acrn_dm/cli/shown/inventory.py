"""The inventory of plugins: what is installed, from where, what it offers, what was left out and why; as text and as
JSON.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from acrn_dm.base.errors import AcrnDmError
from acrn_dm.base.records import frozen
from acrn_dm.cli.plugin_options import OptionParser
from acrn_dm.contract import options
from acrn_dm.contract.drivers.choice import DriverType
from acrn_dm.contract.plugins import Offers, PluginManager
from acrn_dm.contract.types import BackendType, DeviceType, HypervisorType, Provenance
from acrn_dm.machine.hypervisor import unusable
from acrn_dm.machine.resolve import ORIGINAL_DEVICES


@frozen(kw_only=True)
class PluginReport:
    """One plugin: where it comes from and what it offers, each by the names that users write."""

    plugin: str
    distribution: str
    version: str
    module: str
    file: str
    devices: tuple[str, ...]
    backends: tuple[str, ...]
    hypervisors: tuple[str, ...]
    block_drivers: tuple[str, ...]
    packet_drivers: tuple[str, ...]
    options: tuple[str, ...]


def reports(plugins: PluginManager) -> tuple[PluginReport, ...]:
    """All loaded plugins, the built-in ones first."""
    parts = sorted(plugins.loaded, key=lambda part: (not part[0].built_in, part[0].plugin))
    return tuple(_report(origin, plugin, plugins) for origin, plugin in parts)


def _report(origin: Provenance, plugin: object, plugins: PluginManager) -> PluginReport:
    def of(offers: Offers[Any]) -> tuple[str, ...]:
        return tuple(name for name, claimed in offers.claims.items() if any(o.owner is origin for o in claimed))

    return PluginReport(
        plugin=origin.plugin,
        distribution=origin.distribution,
        version=origin.version,
        module=str(getattr(plugin, "__name__", type(plugin).__qualname__)),
        file=str(getattr(plugin, "__file__", None) or ""),
        devices=of(plugins.devices),
        backends=of(plugins.backends),
        hypervisors=of(plugins.hypervisors),
        block_drivers=of(plugins.block_drivers),
        packet_drivers=of(plugins.packet_drivers),
        options=tuple(_options(origin, plugins)),
    )


def _options(origin: Provenance, plugins: PluginManager) -> list[str]:
    """The command-line options that one plugin adds."""
    parser = OptionParser(())
    try:
        plugins.add_options_of(origin, parser)
    except AcrnDmError:
        return []  # it is among the problems
    return [f"--{name}" for name in parser.defaults]


def render_plugins(plugins: PluginManager) -> str:
    """All plugins as text: a paragraph each, then what was left out."""
    parts = ["\n".join(_lines(report)) for report in reports(plugins)]
    parts += [f"{origin}: left out by the user's wish" for origin in plugins.left_out]
    contests = _contests(plugins)
    faults = [*map(str, plugins.faults()), *contests]
    if faults:
        parts.append("\n".join(["Refused; a machine that does not need it starts", *(f"  {line}" for line in faults)]))
    return "\n".join(parts)


def _lines(report: PluginReport) -> Iterable[str]:
    version = f" {report.version}" if report.version else ""
    yield f"{report.plugin} ({report.distribution}{version})"
    yield f"  from {report.file or report.module}"
    for what in ("devices", "backends", "hypervisors", "block_drivers", "packet_drivers", "options"):
        names = getattr(report, what)
        if names:
            yield f"  {what.replace('_', ' ')}: {', '.join(names)}"


def plugins_json(plugins: PluginManager) -> str:
    """All plugins as one object: ``plugins``, ``left_out``, ``refused``, ``contested``."""
    return _dumped(
        {
            "plugins": [attrs.asdict(report) for report in reports(plugins)],
            "left_out": [attrs.asdict(origin) for origin in plugins.left_out],
            "refused": [
                {"plugin": fault.provenance, "hook": fault.hook, "reason": fault.reason} for fault in plugins.faults()
            ],
            "contested": _contests(plugins),
        }
    )


def _contests(plugins: PluginManager) -> list[str]:
    """A line for each name that two offer, where the user chooses by name."""
    offered = (plugins.devices, plugins.block_drivers, plugins.packet_drivers)
    return [found.contest(name) for found in offered for name in found.contested()]


def devices_json(plugins: PluginManager) -> str:
    """All kinds of devices and backends, and the original's that nobody provides."""
    kinds = {id(offer.record): offer.record for offer in plugins.devices.accepted}
    return _dumped(
        {
            "devices": [_device(kind, plugins) for kind in sorted(kinds.values(), key=lambda kind: kind.name)],
            "backends": [_backend(offer.record, plugins) for offer in plugins.backends.accepted],
            "block_drivers": [_described(offer.record, plugins) for offer in plugins.block_drivers.accepted],
            "packet_drivers": [_described(offer.record, plugins) for offer in plugins.packet_drivers.accepted],
            "missing": sorted(ORIGINAL_DEVICES - plugins.devices.claims.keys()),
        }
    )


def device_json(kind: DeviceType, plugins: PluginManager) -> str:
    """One kind of device."""
    return _dumped(_device(kind, plugins))


def driver_json(record: DriverType, plugins: PluginManager) -> str:
    """One driver."""
    return _dumped(_described(record, plugins))


def hypervisors_json(plugins: PluginManager) -> str:
    """All hypervisors; ``problem`` is why one can't be used here."""
    kinds = sorted(plugins.hypervisor_types().values(), key=lambda kind: (-kind.rank, kind.name))
    return _dumped({"hypervisors": [_hypervisor(kind, plugins) for kind in kinds]})


def _device(kind: DeviceType, plugins: PluginManager) -> Mapping[str, object]:
    return {**_described(kind, plugins), "aliases": list(kind.aliases), "drivers": kind.drivers}


def _described(kind: DeviceType | DriverType, plugins: PluginManager) -> Mapping[str, object]:
    return {
        "name": kind.name,
        "summary": kind.summary,
        "provider": _origin(plugins.provider(kind)),
        "grammar": getattr(kind.config, "GRAMMAR", None),
        "options": [attrs.asdict(line) for line in options.describe(kind.config)] if attrs.has(kind.config) else [],
    }


def _backend(kind: BackendType, plugins: PluginManager) -> Mapping[str, object]:
    return {
        "name": kind.name,
        "summary": kind.summary,
        "kinds": sorted(kind.kinds),
        "provider": _origin(plugins.provider(kind)),
    }


def _hypervisor(kind: HypervisorType, plugins: PluginManager) -> Mapping[str, object]:
    return {
        "name": kind.name,
        "summary": kind.summary,
        "problem": unusable(kind, plugins),
        "automatic": kind.rank >= 0,
        "provider": _origin(plugins.provider(kind)),
    }


def _origin(origin: Provenance | None) -> Mapping[str, Any] | None:
    return None if origin is None else attrs.asdict(origin)


def _dumped(value: Mapping[str, object] | Sequence[object]) -> str:
    return json.dumps(value, indent=2)
