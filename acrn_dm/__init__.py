"""acrn_dm: a virtual machine's device model whose devices are Python plugins.

The names below are the interface for plugins, grouped by whose work needs them; everything else may change.
``acrn_dm.testing`` has what the tests of a plugin need.

A name is imported when it is asked for (PEP 562), for every program of this package imports this file. Type checkers
and ``make docs`` read the statements, Python the table; a test holds the two together.
"""

TYPE_CHECKING = False  # as typing's, which would have to be imported
if TYPE_CHECKING:
    # Every plugin: hooks, options, errors by blame
    from acrn_dm.base.errors import AcrnDmError as AcrnDmError
    from acrn_dm.base.errors import ConfigError as ConfigError
    from acrn_dm.base.errors import GuestError as GuestError
    from acrn_dm.base.errors import HostError as HostError
    from acrn_dm.base.errors import PluginError as PluginError
    from acrn_dm.contract.hookspecs import hookimpl as hookimpl
    from acrn_dm.contract.machine import OptionParser as OptionParser
    from acrn_dm.contract.option_types import ByteSize as ByteSize
    from acrn_dm.contract.options import option as option
    from acrn_dm.contract.options import parse_options as parse_options
    from acrn_dm.contract.options import vhost_user_option as vhost_user_option

    # A device: its kind, its place, what it is given
    from acrn_dm.contract.types import Bdf as Bdf
    from acrn_dm.contract.types import Device as Device
    from acrn_dm.contract.types import DeviceContext as DeviceContext
    from acrn_dm.contract.types import DeviceType as DeviceType
    from acrn_dm.contract.resources import HostFault as HostFault
    from acrn_dm.contract.resources import Resources as Resources
    from acrn_dm.memory.guest_memory import GuestMemory as GuestMemory
    from acrn_dm.memory.guest_memory import MemoryRange as MemoryRange
    from acrn_dm.memory.guest_memory import MemoryRegion as MemoryRegion
    from acrn_dm.base.events.ioloop import READ as READ
    from acrn_dm.base.events.ioloop import WRITE as WRITE
    from acrn_dm.base.events.ioloop import IoLoop as IoLoop
    from acrn_dm.base.events.ioloop import Timer as Timer
    from acrn_dm.base.events.io_threads import IoThreads as IoThreads
    from acrn_dm.base.events.clock import Clock as Clock
    from acrn_dm.base.bus import Bus as Bus
    from acrn_dm.base.bus import Handler as Handler
    from acrn_dm.base.bus import Range as Range
    from acrn_dm.base.irq import EventFdRegistry as EventFdRegistry
    from acrn_dm.base.irq import InterruptSink as InterruptSink
    from acrn_dm.base.files.claims import Claim as Claim
    from acrn_dm.base.files.claims import Claimant as Claimant
    from acrn_dm.base.files.claims import path_key as path_key
    from acrn_dm.base.files.claims import socket_claim as socket_claim
    from acrn_dm.base.files.file_locks import Access as Access
    from acrn_dm.base.sockets.command_lines import CommandLines as CommandLines

    # A virtio device: its queues and their buffers, and what only some devices have
    from acrn_dm.virtio.device import Transport as Transport
    from acrn_dm.virtio.device import VirtioDevice as VirtioDevice
    from acrn_dm.virtio.queue import Queue as Queue
    from acrn_dm._fastring import Chain as Chain
    from acrn_dm.ring.ring import Ring as Ring
    from acrn_dm.virtio.native._plane import Plane as Plane
    from acrn_dm.virtio.native._counters import QueueCounters as QueueCounters
    from acrn_dm.virtio.native.counts import QueueCounts as QueueCounts
    from acrn_dm.virtio.placement import Placement as Placement
    from acrn_dm.virtio.optional import Cancellable as Cancellable
    from acrn_dm.virtio.optional import FeatureJudge as FeatureJudge
    from acrn_dm.virtio.optional import InFlight as InFlight
    from acrn_dm.virtio.optional import LegacyConfig as LegacyConfig
    from acrn_dm.virtio.optional import LinkSwitch as LinkSwitch
    from acrn_dm.virtio.optional import LocalQueues as LocalQueues
    from acrn_dm.virtio.optional import LoopChoice as LoopChoice
    from acrn_dm.virtio.optional import MediumSlot as MediumSlot
    from acrn_dm.virtio.optional import NativePlane as NativePlane
    from acrn_dm.virtio.optional import NegotiationWatcher as NegotiationWatcher
    from acrn_dm.virtio.optional import QueueEnabled as QueueEnabled
    from acrn_dm.virtio.optional import QueueInFlight as QueueInFlight
    from acrn_dm.virtio.optional import QueueReset as QueueReset
    from acrn_dm.virtio.optional import QueueSwitch as QueueSwitch
    from acrn_dm.virtio.optional import Sandboxed as Sandboxed
    from acrn_dm.base.sandbox.needs import Needs as Needs
    from acrn_dm.base.process.users import User as User
    from acrn_dm.virtio.optional import SlowToClose as SlowToClose
    from acrn_dm.virtio.optional import TerminalUser as TerminalUser
    from acrn_dm.virtio.optional import Threads as Threads
    from acrn_dm.virtio.optional import WindowWatcher as WindowWatcher

    # A PCI function: BARs, capabilities, interrupts
    from acrn_dm.pci.function import PciFunction as PciFunction
    from acrn_dm.pci.bar import Bar as Bar
    from acrn_dm.pci.bar import BarKind as BarKind
    from acrn_dm.pci.config_space import ConfigSpace as ConfigSpace
    from acrn_dm.pci.msi import Msi as Msi
    from acrn_dm.pci.msi import MsiForm as MsiForm
    from acrn_dm.pci.msix import Msix as Msix
    from acrn_dm.pci.intx import IntxPin as IntxPin
    from acrn_dm.pci.pirq import PirqRouter as PirqRouter

    # A backend: who moves a virtio device's data
    from acrn_dm.contract.types import BackendType as BackendType
    from acrn_dm.virtio.backend import Backend as Backend
    from acrn_dm.virtio.backend import Session as Session
    from acrn_dm.virtio.backend import SessionQueue as SessionQueue
    from acrn_dm.ring.position import RingPosition as RingPosition
    from acrn_dm.virtio.backend import Kick as Kick
    from acrn_dm.virtio.backend import Call as Call
    from acrn_dm.ring.layout import RingLayout as RingLayout
    from acrn_dm.ring.layout import RingPart as RingPart
    from acrn_dm.backends.vbs_u import VbsU as VbsU
    from acrn_dm.backends.kernel.backend import KernelVhost as KernelVhost
    from acrn_dm.backends.kernel.node import VhostNode as VhostNode
    from acrn_dm.backends.kernel.node import VhostQueue as VhostQueue

    # A driver: executes a disk's requests, or carries a card's frames
    from acrn_dm.contract.types import BlockDriverType as BlockDriverType
    from acrn_dm.contract.types import PacketDriverType as PacketDriverType
    from acrn_dm.contract.types import DriverContext as DriverContext
    from acrn_dm.contract.types import ChosenDriver as ChosenDriver
    from acrn_dm.contract.drivers.block import BlockDriver as BlockDriver
    from acrn_dm.contract.drivers.block import BlockFilter as BlockFilter
    from acrn_dm.contract.drivers.packet import PacketDriver as PacketDriver
    from acrn_dm.contract.drivers.packet import PacketFile as PacketFile
    from acrn_dm.contract.drivers.packet import PacketPort as PacketPort

    # A hypervisor: runs the vCPUs, or plays them
    from acrn_dm.contract.types import HypervisorOptions as HypervisorOptions
    from acrn_dm.contract.types import HypervisorType as HypervisorType
    from acrn_dm.contract.hypervisor import Hypervisor as Hypervisor
    from acrn_dm.contract.hypervisor import Dispatch as Dispatch
    from acrn_dm.contract.hypervisor import VmEvent as VmEvent
    from acrn_dm.contract.registers import BootRegisters as BootRegisters
    from acrn_dm.contract.registers import Segment as Segment
    from acrn_dm.base.irq import IoEventFd as IoEventFd
    from acrn_dm.base.irq import IrqFd as IrqFd
    from acrn_dm.base.irq import MsiMessage as MsiMessage
    from acrn_dm.base.irq import IntxLine as IntxLine
    from acrn_dm.base.irq import Space as Space
    from acrn_dm.contract.processors import ProcessorPower as ProcessorPower
    from acrn_dm.contract.processors import PState as PState
    from acrn_dm.contract.processors import CState as CState
    from acrn_dm.contract.processors import GenericAddress as GenericAddress
    from acrn_dm.contract.interrupt_monitor import InterruptMonitor as InterruptMonitor
    from acrn_dm.contract.interrupt_monitor import InterruptWatcher as InterruptWatcher
    from acrn_dm.contract.interrupt_monitor import PendingCall as PendingCall

    # An observer: the machine that it is told of
    from acrn_dm.contract.machine import ObservedMachine as ObservedMachine
    from acrn_dm.contract.config import MachineConfig as MachineConfig
    from acrn_dm.contract.config import DeviceSpec as DeviceSpec
    from acrn_dm.contract.config import UartSpec as UartSpec
    from acrn_dm.contract.config import Firmware as Firmware

_NAMES = {  # by the module that has them
    "acrn_dm.base.errors": ("AcrnDmError", "ConfigError", "GuestError", "HostError", "PluginError"),
    "acrn_dm.contract.hookspecs": ("hookimpl",),
    "acrn_dm.contract.machine": ("OptionParser", "ObservedMachine"),
    "acrn_dm.contract.option_types": ("ByteSize",),
    "acrn_dm.contract.options": ("option", "parse_options", "vhost_user_option"),
    "acrn_dm.contract.types": (
        *("Bdf", "Device", "DeviceContext", "DeviceType", "BackendType", "HypervisorOptions", "HypervisorType"),
        *("BlockDriverType", "PacketDriverType", "DriverContext", "ChosenDriver"),
    ),
    "acrn_dm.contract.resources": ("HostFault", "Resources"),
    "acrn_dm.memory.guest_memory": ("GuestMemory", "MemoryRange", "MemoryRegion"),
    "acrn_dm.base.events.ioloop": ("READ", "WRITE", "IoLoop", "Timer"),
    "acrn_dm.base.events.io_threads": ("IoThreads",),
    "acrn_dm.base.events.clock": ("Clock",),
    "acrn_dm.base.bus": ("Bus", "Handler", "Range"),
    "acrn_dm.base.irq": ("EventFdRegistry", "InterruptSink", "IoEventFd", "IrqFd", "MsiMessage", "IntxLine", "Space"),
    "acrn_dm.base.files.claims": ("Claim", "Claimant", "path_key", "socket_claim"),
    "acrn_dm.base.files.file_locks": ("Access",),
    "acrn_dm.base.sockets.command_lines": ("CommandLines",),
    "acrn_dm.base.sandbox.needs": ("Needs",),
    "acrn_dm.base.process.users": ("User",),
    "acrn_dm.virtio.device": ("Transport", "VirtioDevice"),
    "acrn_dm.virtio.queue": ("Queue",),
    "acrn_dm._fastring": ("Chain",),
    "acrn_dm.ring.ring": ("Ring",),
    "acrn_dm.virtio.native._plane": ("Plane",),
    "acrn_dm.virtio.native._counters": ("QueueCounters",),
    "acrn_dm.virtio.native.counts": ("QueueCounts",),
    "acrn_dm.virtio.placement": ("Placement",),
    "acrn_dm.virtio.optional": (
        *("Cancellable", "FeatureJudge", "InFlight", "LegacyConfig", "LinkSwitch", "LocalQueues", "LoopChoice"),
        *("MediumSlot", "NativePlane", "NegotiationWatcher", "QueueEnabled", "QueueInFlight", "QueueReset"),
        *("QueueSwitch", "Sandboxed", "SlowToClose", "TerminalUser", "Threads", "WindowWatcher"),
    ),
    "acrn_dm.pci.function": ("PciFunction",),
    "acrn_dm.pci.bar": ("Bar", "BarKind"),
    "acrn_dm.pci.config_space": ("ConfigSpace",),
    "acrn_dm.pci.msi": ("Msi", "MsiForm"),
    "acrn_dm.pci.msix": ("Msix",),
    "acrn_dm.pci.intx": ("IntxPin",),
    "acrn_dm.pci.pirq": ("PirqRouter",),
    "acrn_dm.virtio.backend": ("Backend", "Session", "SessionQueue", "Kick", "Call"),
    "acrn_dm.ring.position": ("RingPosition",),
    "acrn_dm.ring.layout": ("RingLayout", "RingPart"),
    "acrn_dm.backends.vbs_u": ("VbsU",),
    "acrn_dm.backends.kernel.backend": ("KernelVhost",),
    "acrn_dm.backends.kernel.node": ("VhostNode", "VhostQueue"),
    "acrn_dm.contract.drivers.block": ("BlockDriver", "BlockFilter"),
    "acrn_dm.contract.drivers.packet": ("PacketDriver", "PacketFile", "PacketPort"),
    "acrn_dm.contract.hypervisor": ("Hypervisor", "Dispatch", "VmEvent"),
    "acrn_dm.contract.registers": ("BootRegisters", "Segment"),
    "acrn_dm.contract.processors": ("ProcessorPower", "PState", "CState", "GenericAddress"),
    "acrn_dm.contract.interrupt_monitor": ("InterruptMonitor", "InterruptWatcher", "PendingCall"),
    "acrn_dm.contract.config": ("MachineConfig", "DeviceSpec", "UartSpec", "Firmware"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_HOMES)


if not TYPE_CHECKING:  # for which every name would be one of ours

    def __getattr__(name):
        """The public *name*, which stays here from now on."""
        import importlib  # noqa: PLC0415

        if name == "_fastring":  # public under its own name
            return importlib.import_module("acrn_dm._fastring")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
