"""Notes of what is in flight: wherever a process dies, the next one finds each chain that the driver still waits for,
once, in order, and no other.
"""

import copy
import mmap
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.ring.factory import make_ring, ring_format
from acrn_dm.ring.ring import DriverSide, Ring
from tests.ring.formats import FORMATS, Format, Placed
from tests.ring.native.notes.stepped import lines, states

RAM, RING, DATA, ROOM = 0x1_0000, 0x1000, 0x8000, 0x100
RINGS_END = 0x2000
# What is done, in turns: o(ffer) chains of so many descriptors, t(ake) as many, u(n-take), r(eturn) these of what is
# out by their places, s(how), c(ollect). Between taking and showing others are taken and returned.
SCRIPTS = {
    "in order": "o123 t3 r000 s c o21 t2 r00 s c",
    "out of order": "o1231 t4 r2 s o1 t1 r20 s c o11 t2 r101 s c",
    "mixed": "o321 t2 r1 o1 t2 r0 s r00 s c o2 t1 r0 s c",
    "given back": "o1121 t3 u2 t1 r0 s u1 t3 r210 s c",
}


@attrs.define(eq=False)
class Scene:
    """A driver, a ring that notes, and the memory of both. *offered* are the chains by the driver's names, in the order
    in which they were made available, or -1 for those it has back; *out* those that the device has.
    """

    fmt: Format
    ram: mmap.mmap
    region: mmap.mmap
    size: int
    driver: DriverSide
    offered: list[int]
    ring: Any = None
    out: list[Any] = attrs.field(factory=list)

    @classmethod
    def make(cls, fmt: Format, size: int, start: int) -> "Scene":
        ram, region = mmap.mmap(-1, RAM), mmap.mmap(-1, ring_format(fmt.feature).notes().length(size))
        layout = fmt.lay_out(RING, size)
        scene = cls(fmt, ram, region, size, fmt.driver(MemoryMap([(0, ram)]), layout, start=start), [])
        scene.ring = scene.serve(start)
        return scene

    def serve(self, start: int = 0) -> Ring:
        placed = Placed(self.driver.layout, self.fmt.position(self.driver.layout, start))
        return make_ring(self.fmt.features(), placed, MemoryMap([(0, self.ram)]), memoryview(self.region))

    def look(self) -> bytes:
        return self.region[:] + self.ram[RING:RINGS_END]

    def left(self, state: bytes | None = None) -> "Scene":
        """What there is in memory of its own, as if all processes but the driver's had died, in *state*."""
        ram, region = mmap.mmap(-1, RAM), mmap.mmap(-1, len(self.region))
        ram[:], region[:] = self.ram[:], self.region[:]
        if state is not None:
            region[:], ram[RING:RINGS_END] = state[: len(region)], state[len(region) :]
        driver = copy.deepcopy(self.driver, {id(self.driver.memory): MemoryMap([(0, ram)])})
        return Scene(self.fmt, ram, region, self.size, driver, list(self.offered))

    def offer(self, length: int) -> None:
        number = len(self.offered)
        data = DATA + number * ROOM
        out = [(data + 16 * i, 16) for i in range(length - 1)]
        self.ram[data : data + ROOM] = bytes([number + 1]) * ROOM
        self.offered.append(self.driver.add_chain(out, [(data + 16 * length, 16)]))
        self.driver.publish()

    def collect(self) -> None:
        for head, _ in self.driver.used():
            self.offered[self.offered.index(head)] = -1

    def finish(self) -> None:
        """Serve what is left, and check that it was that."""
        waiting = [(number, head) for number, head in enumerate(self.offered) if head >= 0]
        shown = [head for head, _ in copy.deepcopy(self.driver, {id(self.driver.memory): self.driver.memory}).used()]
        self.ring = self.serve()
        chains = pop_all(self.ring)
        assert [chain.head for chain in chains] == [head for _, head in waiting if head not in shown]
        for number, head in waiting:
            if head not in shown:
                assert set(next(chain for chain in chains if chain.head == head).read()) <= {number + 1}
        for chain in reversed(chains):
            self.ring.push(chain, 0)
        self.ring.publish()
        assert sorted(head for head, _ in self.driver.used()) == sorted(head for _, head in waiting)
        self.ring.close()


def pop_all(ring: Any) -> list[Any]:
    chains: list[Any] = []
    while more := ring.pop_batch():
        chains += more
    return chains


def device_step(scene: Scene, what: str, argument: str) -> Any:
    """A step of the device; returns what becomes of *out*."""
    out = list(scene.out)
    if what == "t":
        while (missing := int(argument) - len(out) + len(scene.out)) > 0:
            out += scene.ring.pop_batch(missing)
    elif what == "u":
        out, given = out[: -int(argument)], out[-int(argument) :]
        scene.ring.unpop(given)
    elif what == "r":
        for place in argument:
            scene.ring.push(out.pop(int(place)), 0)
    elif what == "s":
        scene.ring.publish()
    return out


def played(scene: Scene, script: str, *, stepped: bool) -> Iterator[None]:
    """Play *script*; where the device's steps are *stepped*, comes back after each store of theirs."""
    for word in script.split():
        what, argument = word[0], word[1:]
        if what == "o":
            for length in argument:
                scene.offer(int(length))
        elif what == "c":
            scene.collect()
        elif stepped:
            before = scene.region[:], scene.ram[:]
            yield from states(lambda w=what, a=argument: device_step(scene, w, a), scene.look)  # type: ignore[misc]
            scene.region[:], scene.ram[:] = before
            scene.out = device_step(scene, what, argument)
        else:
            scene.out = device_step(scene, what, argument)
            yield


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("start", [0, 13], ids=["fresh", "in the second lap"])
def test_next_process_takes_what_is_in_flight_wherever_one_dies(fmt: Format, script: str, start: int) -> None:
    scene = Scene.make(fmt, 8, start)
    seen = 0
    for _ in played(scene, script, stepped=start == 0):
        scene.left().finish()
        seen += 1
    assert seen > (30 if start == 0 else 5)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_next_process_may_die_when_it_takes_over_and_while_it_goes_on(fmt: Format) -> None:
    """At each line that sets the notes right, and at each store of serving what was left."""
    scene = Scene.make(fmt, 8, 0)
    for _ in played(scene, "o1212 t4 r1 s c o1 t1", stepped=False):
        pass
    second = scene.left()
    for state in lines(lambda: setattr(second, "ring", second.serve()), second.look):
        second.left(state).finish()
    for _ in played(second, "t3 r0 s u1 t2 r00 s c o11 t2 r1 s", stepped=True):
        second.left().finish()


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_notes_are_told_of_hundreds_of_chains_through_one_ring(fmt: Format) -> None:
    """Each lap, with some of them returned late."""
    scene = Scene.make(fmt, 5 if fmt.feature else 4, 0)
    for turn in range(200):
        for _ in played(scene, "o1 t1 r0 s c" if turn % 3 else "o12 t2 r10 s c", stepped=False):
            pass
        scene.left().finish()
        scene.offered.clear()
