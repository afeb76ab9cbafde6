"""Rings of a device's own, in place of the real ones: so a device can be wrong in what rings see to by themselves."""

from collections.abc import Sequence
from typing import Any

from acrn_dm import Queue, VirtioDevice
from tests.testing.conformance.mutants.right import Right, registers_of


class OwnRing:
    """A ring in place of the real one, which does what the real one does but for what a subclass changes."""

    def __init__(self, real: Any, device: VirtioDevice, index: int, features: int) -> None:
        self.real = real
        self.index = index
        self.features = features
        self.registers = registers_of(device, index)
        function: Any = device.transport
        self.memory = function._resources.memory.map

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    @property
    def event_idx(self) -> bool:
        return bool(self.features >> 29 & 1)

    def peek(self, gpa: int, size: int = 2) -> int:
        """A little-endian number in guest memory."""
        return int.from_bytes(self.memory.read(gpa, size), "little")

    def poke(self, gpa: int, value: int, size: int = 2) -> None:
        """Write a little-endian number."""
        self.memory.write(gpa, value.to_bytes(size, "little"))

    @property
    def used_idx_at(self) -> int:
        return int(self.registers.used) + 2

    @property
    def avail_flags(self) -> int:
        return self.peek(self.registers.avail)

    @property
    def used_event(self) -> int:
        return self.peek(self.registers.avail + 4 + 2 * self.registers.size)

    def element_at(self, index: int) -> int:
        """Where the used element of the *index*-th push is."""
        return int(self.registers.used + 4 + 8 * (index % self.registers.size))


def on_rings(ring: type[OwnRing], device: VirtioDevice, features: int, queues: Sequence[Queue]) -> None:
    """Put rings of that class in the place of the queues' own."""
    for queue in queues:
        queue.ring = ring(queue.ring, device, queue.index, features)  # type: ignore[assignment]


class OnOwnRing(Right):
    """A right device on rings of ``ring_class``."""

    ring_class: type[OwnRing] = OwnRing

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        on_rings(self.ring_class, self, features, queues)
