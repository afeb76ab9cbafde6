"""acrn_dm: a virtual machine's device model whose devices are Python plugins.

The names below are the interface for plugins; everything else may change. They are looked up when they are used, so
that a plugin can import this package while this package loads plugins. ``acrn_dm.testing`` has what the tests of a
plugin need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acrn_dm._fastring import Chain
    from acrn_dm.backends.kernel.backend import KernelVhost
    from acrn_dm.backends.kernel.node import VhostNode, VhostQueue
    from acrn_dm.base.errors import AcrnDmError, ConfigError, GuestError, HostError, PluginError
    from acrn_dm.base.events.ioloop import READ, WRITE, IoLoop, Timer
    from acrn_dm.base.files.claims import Claim
    from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage, Space
    from acrn_dm.contract.hookspecs import hookimpl
    from acrn_dm.contract.options import option
    from acrn_dm.contract.resources import Resources
    from acrn_dm.contract.types import BackendType, Bdf, DeviceContext, DeviceType, HypervisorOptions, HypervisorType
    from acrn_dm.memory.guest_memory import GuestMemory
    from acrn_dm.pci.bar import Bar, BarKind
    from acrn_dm.pci.function import PciFunction
    from acrn_dm.virtio.backend import Backend, Session, SessionQueue
    from acrn_dm.virtio.device import VirtioDevice
    from acrn_dm.virtio.optional import (
        Cancellable,
        InFlight,
        LegacyConfig,
        LocalQueues,
        LoopChoice,
        MediumSlot,
        NegotiationWatcher,
        QueueSwitch,
        SlowToClose,
        TerminalUser,
        WindowWatcher,
    )
    from acrn_dm.virtio.placement import Placement
    from acrn_dm.virtio.queue import Queue

_HOMES = {
    "_fastring": ("Chain",),
    "base.files.claims": ("Claim",),
    "base.errors": ("AcrnDmError", "ConfigError", "GuestError", "HostError", "PluginError"),
    "contract.hookspecs": ("hookimpl",),
    "base.events.ioloop": ("READ", "WRITE", "IoLoop", "Timer"),
    "base.irq": ("IntxLine", "IoEventFd", "IrqFd", "MsiMessage", "Space"),
    "memory.guest_memory": ("GuestMemory",),
    "contract.options": ("option",),
    "pci.bar": ("Bar", "BarKind"),
    "pci.function": ("PciFunction",),
    "contract.resources": ("Resources",),
    "contract.types": ("BackendType", "Bdf", "DeviceContext", "DeviceType", "HypervisorOptions", "HypervisorType"),
    "backends.kernel.backend": ("KernelVhost",),
    "backends.kernel.node": ("VhostNode", "VhostQueue"),
    "virtio.backend": ("Backend", "Session", "SessionQueue"),
    "virtio.device": ("VirtioDevice",),
    "virtio.optional": (
        *("Cancellable", "InFlight", "LegacyConfig", "LocalQueues", "LoopChoice", "MediumSlot"),
        *("NegotiationWatcher", "QueueSwitch", "SlowToClose", "TerminalUser", "WindowWatcher"),
    ),
    "virtio.placement": ("Placement",),
    "virtio.queue": ("Queue",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AcrnDmError",
    "Backend",
    "BackendType",
    "Bar",
    "BarKind",
    "Bdf",
    "Cancellable",
    "Chain",
    "Claim",
    "ConfigError",
    "DeviceContext",
    "DeviceType",
    "GuestError",
    "GuestMemory",
    "HostError",
    "HypervisorOptions",
    "HypervisorType",
    "InFlight",
    "IntxLine",
    "IoEventFd",
    "IoLoop",
    "IrqFd",
    "KernelVhost",
    "LegacyConfig",
    "LocalQueues",
    "LoopChoice",
    "MediumSlot",
    "MsiMessage",
    "NegotiationWatcher",
    "PciFunction",
    "Placement",
    "PluginError",
    "Queue",
    "QueueSwitch",
    "READ",
    "Resources",
    "Session",
    "SessionQueue",
    "SlowToClose",
    "Space",
    "TerminalUser",
    "Timer",
    "VhostNode",
    "VhostQueue",
    "VirtioDevice",
    "WRITE",
    "WindowWatcher",
    "hookimpl",
    "option",
]


def __getattr__(name: str) -> Any:
    """Import the module that has *name* (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
