"""The device that ``--acrn-dm-conform PACKAGE:DEVICE`` names."""

import importlib
import importlib.metadata
import re

import pytest

from acrn_dm import AcrnDmError
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import DeviceType
from acrn_dm.testing import SimMachine
from acrn_dm.testing.conformance import SLOT, Subject

BUILT_IN = "acrn_dm"  # the package whose devices need no plugin


def find(text: str) -> Subject:
    """The subject that *text* names: an importable module or an installed distribution with the entry point, a colon,
    and a device as behind ``-s``. Raises UsageError with one line.
    """
    package, colon, device = text.partition(":")
    name, _, options = device.partition(",")
    if not (package and colon and name):
        raise pytest.UsageError(f"--acrn-dm-conform {text}: not PACKAGE:DEVICE[,OPTIONS], e.g. acrn_dm_rng:virtio-rnd")
    plugins = [] if package == BUILT_IN else _plugins(package)
    try:
        kind = _kind(plugins, package, name)
        subject = Subject(build=lambda machine: _add(machine, kind, options), name=text, plugins=plugins)
        subject.look()
    except AcrnDmError as e:
        raise pytest.UsageError(f"--acrn-dm-conform {text}: {e}") from e
    return subject


def _add(machine: SimMachine, kind: DeviceType, options: str) -> object:
    return machine.add(kind, options, slot=SLOT)


def _kind(plugins: list[object], package: str, name: str) -> DeviceType:
    types = make_plugin_manager(entry_points=False, extra=plugins).device_types()
    built_in = make_plugin_manager(entry_points=False).device_types() if plugins else {}
    offered = {key: kind for key, kind in types.items() if key not in built_in}
    if name not in offered:
        raise pytest.UsageError(f"{package} has no device {name!r}; it has {', '.join(sorted(offered)) or 'none'}")
    return offered[name]


def _plugins(package: str) -> list[object]:
    """The modules of an installed distribution's entry points, else the module of that name."""
    entries = [
        entry
        for entry in importlib.metadata.entry_points(group="acrn_dm")
        if entry.dist is not None and _normal(entry.dist.name) == _normal(package)
    ]
    try:
        if entries:
            return [entry.load() for entry in entries]
        return [importlib.import_module(package)]
    except Exception as e:  # a plugin's import may raise anything
        raise pytest.UsageError(f"{package} can't be imported: {type(e).__name__}: {e}") from e


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
