"""Kicks by the write that makes them: found, and checked against one another, without a look at all of them.

Two bindings collide where one write could match both; their eventfds do not matter (Linux virt/kvm/eventfd.c,
ioeventfd_check_collision and ioeventfd_in_range). So there is at most one for a write.
"""

import attrs

from acrn_dm.base.irq import IoEventFd, Space
from acrn_dm.base.records import define

ANY_LENGTH = 0

_Match = tuple[int, int | None]  # length and value of the write
_Places = dict[int, dict[_Match, IoEventFd]]  # by address


@define(eq=False)
class KickIndex:
    """The bindings of one machine. Not locked: the owner is."""

    _ports: _Places = attrs.field(factory=dict, init=False)
    _memory: _Places = attrs.field(factory=dict, init=False)

    def collides(self, binding: IoEventFd) -> bool:
        """Whether a write could match *binding* and one that is here."""
        here = self._places(binding.space).get(binding.addr)
        if here is None:
            return False
        if binding.len == ANY_LENGTH or (ANY_LENGTH, None) in here:
            return True
        if binding.datamatch is None:
            return any(length == binding.len for length, _ in here)
        return (binding.len, None) in here or (binding.len, binding.datamatch) in here

    def add(self, binding: IoEventFd) -> None:
        """Take *binding*, which collides with none."""
        here = self._places(binding.space).setdefault(binding.addr, {})
        here[binding.len, binding.datamatch] = binding

    def remove(self, binding: IoEventFd) -> None:
        """Forget *binding*, which is here."""
        places = self._places(binding.space)
        del places[binding.addr][binding.len, binding.datamatch]
        if not places[binding.addr]:
            del places[binding.addr]

    def find(self, space: Space, addr: int, size: int, value: int) -> IoEventFd | None:
        """The one that a write of *size* bytes matches."""
        here = self._places(space).get(addr)
        if here is None:  # most writes
            return None
        return here.get((size, value)) or here.get((size, None)) or here.get((ANY_LENGTH, None))

    def clear(self) -> None:
        """Forget all."""
        self._ports.clear()
        self._memory.clear()

    def _places(self, space: Space) -> _Places:
        return self._ports if space is Space.PIO else self._memory
