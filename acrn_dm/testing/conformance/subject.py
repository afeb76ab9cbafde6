"""The device under test as every rule knows it: how it is built, what it is, and which queues answer unasked."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from acrn_dm.ring import features
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.setup import FORMATS, INTX, LEGACY, MODERN, MSI, MSIX, SPLIT, Axes
from acrn_dm.testing.conformance.table import KINDS, PCI
from acrn_dm.testing.guest_pci import CAP_MSI, GuestFunction
from acrn_dm.testing.machine import SimMachine
from acrn_dm.virtio.defs import VENDOR_ID

SLOT = 3
CAP_VENDOR = 0x09

Build = Callable[[SimMachine], object]


@attrs.define(eq=False, kw_only=True)
class Subject:
    """One device as its builder makes it: *build* puts it into ``SLOT`` of a machine, with *plugins* registered there.

    *outside* is handed on to the rules of its kind: what the world behind the device shows (frames, a disk's bytes).
    *reasons* excuse SHOULD rows, id -> why. *formats* are the ring formats to see it with, of those that it offers.
    """

    build: Build
    name: str = "device"
    plugins: Sequence[object] = ()
    outside: Any = None
    reasons: dict[str, str] = attrs.field(factory=dict)
    formats: Sequence[str] = FORMATS
    kind: str = attrs.field(default="", init=False)
    axes: Axes = attrs.field(factory=dict, init=False)
    answers: dict[int, dict[int, Shape]] = attrs.field(factory=dict, init=False)  # pairs -> queue -> what it returns

    def look(self) -> None:
        """Find out what it is. Raises what building and starting it raises."""
        with _looked_at(SimMachine(plugins=self.plugins)) as machine:
            self.build(machine)
            function = machine.function(SLOT)
            device = getattr(machine.bus.functions[0], "device", None)
            self.reasons = dict(getattr(device, "conformance_reasons", {})) | self.reasons
            self.kind = kind_of(function)
            self.axes = axes_of(function, self._pairs(machine) if self.kind != PCI else 1, self._formats(machine))

    def _formats(self, machine: SimMachine) -> Sequence[str]:
        """Those formats that it offers. Raises ValueError if it has none of them."""
        packed = self.kind != PCI and machine.driver(SLOT).registers.offered() & features.PACKED
        found = [name for name in self.formats if name == SPLIT or packed]
        if not found:
            raise ValueError(f"{self.name} offers no rings that are {' or '.join(self.formats)}")
        return found

    def _pairs(self, machine: SimMachine) -> int:
        registers = machine.driver(SLOT).registers
        offered, mq = registers.offered(), {"net": (22, 8), "blk": (12, 34)}.get(self.kind)
        return registers.read_config(mq[1], 2) if mq is not None and offered >> mq[0] & 1 else 1


@contextlib.contextmanager
def _looked_at(machine: SimMachine) -> Iterator[SimMachine]:
    """The machine, closed at the end; what a device raises then is for the rules to hear."""
    try:
        yield machine
    finally:
        with contextlib.suppress(Exception):
            machine.close()


def virtio_id(function: GuestFunction) -> int | None:
    """The virtio device id of *function* (4.1.2); None when it is no virtio device."""
    if function.read(0, 2) != VENDOR_ID or all(cap.id != CAP_VENDOR for cap in function.capabilities):
        return None
    pci_id = function.read(2, 2)
    return function.read(0x2E, 2) if pci_id < 0x1040 else pci_id - 0x1040


def kind_of(function: GuestFunction) -> str:
    """The kind as the table names it; nothing for a virtio device that it has no rows of."""
    device_id = virtio_id(function)
    return PCI if device_id is None else KINDS.get(device_id, "")


def axes_of(function: GuestFunction, pairs: int, formats: Sequence[str]) -> Axes:
    """The setups that can be made of *function*."""
    virtio = virtio_id(function) is not None
    legacy = virtio and 0 in function.bars and function.bars[0].io
    interrupts = [MSIX] if function.vectors else []
    if virtio or function.capability(CAP_MSI):  # a virtio device has MSI in a machine that asks for it
        interrupts.append(MSI)
    return {
        "ring": formats,
        "transport": [MODERN, LEGACY] if legacy else [MODERN],
        "interrupts": [*interrupts, INTX],
        "pairs": sorted({pairs, 1}, reverse=True),
    }
