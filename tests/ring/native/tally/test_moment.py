"""A tally of a ring that moves while it is looked at: between the load of one index and that of the other."""

import mmap
import os

import attrs

from acrn_dm.ring.layout import RingLayout
from tests.ring.native.tally.gates import Gates, attended
from tests.ring.native.tally.tally_rig import Rig

SIZE = 64
AVAIL, USED, RAM = 2 * mmap.PAGESIZE, 3 * mmap.PAGESIZE, 16 * mmap.PAGESIZE
ENOUGH = 1000  # turns of a look that does not end


@attrs.define(eq=False)
class Scene:
    """A ring whose two indices are in pages of their own, as its tally sees them."""

    rig: Rig
    gates: Gates

    @classmethod
    def make(cls) -> "Scene":
        fd = os.memfd_create("ring")
        try:
            os.ftruncate(fd, RAM)
            ram, view = mmap.mmap(fd, RAM), mmap.mmap(fd, RAM)
        finally:
            os.close(fd)
        layout = RingLayout(size=SIZE, desc=mmap.PAGESIZE, avail=AVAIL, used=USED)
        return cls(Rig(layout=layout, ram=ram, view=view), Gates(view))

    def look(self) -> int:
        with attended(self.gates):
            return self.rig.tally.sample()

    def go_round(self) -> None:
        """The oldest chain comes back, and its head is available again."""
        (head,) = self.rig.out[:1]
        self.rig.give_back(0)
        self.rig.send(1)
        assert self.rig.out[-1] == head


def test_head_that_goes_round_between_the_two_indices_is_no_contradiction() -> None:
    scene = Scene.make()
    scene.rig.send(2)
    scene.look()
    scene.gates.came = lambda page: scene.go_round()
    scene.gates.close(AVAIL)
    assert scene.look() == 1
    assert scene.rig.tally.lost == 0
    assert scene.rig.tally.in_flight() == scene.rig.out == [1, 0]


def test_ring_that_never_stands_still_is_looked_at_another_time() -> None:
    """Each time between the two indices a head goes round; what was known stays so until it is seen."""
    scene = Scene.make()
    scene.rig.send(2)
    scene.look()
    known, turns = list(scene.rig.out), 0

    def came(page: int) -> None:
        nonlocal turns
        turns += page == AVAIL
        if page == AVAIL:
            scene.go_round()
        if turns < ENOUGH:
            scene.gates.close(USED if page == AVAIL else AVAIL)

    scene.gates.came = came
    scene.gates.close(AVAIL)
    assert scene.look() > 0
    assert turns < ENOUGH
    assert scene.rig.tally.lost == 0
    assert scene.rig.tally.in_flight() == known
    turns = ENOUGH  # it stands still now
    assert scene.look() > 0
    assert scene.rig.tally.in_flight() == scene.rig.out
