"""What the tests of tallies share: a driver and a device, each of which does what it is told."""

import mmap

from acrn_dm._fastring import MemoryMap
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import USED_ELEMENT, RingLayout
from acrn_dm.ring.native.tally._tally import RingTally

SIZE = 16
RING, RAM = 0x1000, 0x1_0000


class Rig:
    """A driver and a device that returns what it is told; *out* are the chains in flight, oldest first. The tally sees
    their memory in *view*, if there is one.
    """

    def __init__(
        self,
        start: int = 0,
        layout: RingLayout | None = None,
        ram: mmap.mmap | None = None,
        view: mmap.mmap | None = None,
    ) -> None:
        self.memory = MemoryMap([(0, ram or mmap.mmap(-1, RAM))])
        self.view = self.memory if view is None else MemoryMap([(0, view)])
        self.layout = layout or RingLayout.at(RING, SIZE, 4)
        self.driver = DriverRing(self.memory, self.layout, start=start)
        self.used = start
        self.out: list[int] = []
        self.tally = self.look_on(start)

    def look_on(self, position: int) -> RingTally:
        layout = self.layout
        return RingTally(self.view, size=layout.size, avail=layout.avail, used=layout.used, position=position)

    def send(self, count: int, *, show: bool = True) -> None:
        heads = [self.driver.add_chain([(0x8000, 16)]) for _ in range(count)]
        if show:
            self.driver.publish()
            self.out += heads

    def give_back(self, *places: int) -> None:
        """Return the chains at these places of ``out``, which move up."""
        for place in places:
            self.element(self.out.pop(place))
        self.driver.used()

    def element(self, head: int) -> None:
        """One used element, whatever it names."""
        self.memory.write(self.layout.used_element_at(self.used), USED_ELEMENT.pack(head, 0))
        self.move_used(self.used + 1)

    def move_used(self, index: int) -> None:
        self.used = index & 0xFFFF
        self.memory.write(self.layout.used_idx_at, self.used.to_bytes(2, "little"))

    def lap(self) -> None:
        """A whole ring passes that nobody looks at."""
        for _ in range(SIZE):
            self.send(1)
            self.give_back(-1)
