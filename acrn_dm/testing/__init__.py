"""The kit for tests of plugins: a machine without vCPUs, the driver's side, models of rings, conformance checks."""

from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.model import ModelMemory, ModelSplitRing
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.ring.packed.layout import packed_layout
from acrn_dm.ring.packed.model import ModelPackedRing
from acrn_dm.testing.clock import VirtualClock
from acrn_dm.testing.conformance import CHECKS, assert_device_conforms
from acrn_dm.testing.driver import Completion, DriverQueue, VirtioDriver, rings
from acrn_dm.testing.drivers.block import BlockBench
from acrn_dm.testing.drivers.packet import PacketBench
from acrn_dm.testing.fake_vhost import FakeNode, FakeVhost
from acrn_dm.testing.faults import Fault, Faults
from acrn_dm.testing.guest_pci import GuestFunction
from acrn_dm.testing.machine import SimMachine
from acrn_dm.testing.recorder import Happening, Recorder
from acrn_dm.testing.sessions import Player, Session, SessionFailed, parse_session, replay
from acrn_dm.virtio.strict.clauses import CLAUSES as DRIVER_CLAUSES
from acrn_dm.virtio.strict.clauses import Clause
from acrn_dm.virtio.strict.report import Violation

__all__ = [
    "BlockBench",
    "CHECKS",
    "Clause",
    "Completion",
    "DRIVER_CLAUSES",
    "DriverQueue",
    "DriverRing",
    "FakeNode",
    "FakeVhost",
    "Fault",
    "Faults",
    "GuestFunction",
    "Happening",
    "ModelMemory",
    "ModelPackedRing",
    "ModelSplitRing",
    "PackedDriverRing",
    "PacketBench",
    "Player",
    "Recorder",
    "RingLayout",
    "Session",
    "SessionFailed",
    "SimMachine",
    "VirtualClock",
    "Violation",
    "VirtioDriver",
    "assert_device_conforms",
    "packed_layout",
    "parse_session",
    "replay",
    "rings",
]
