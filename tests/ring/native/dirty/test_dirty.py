"""The log of pages written: each page that a ring or a device changes is marked, in both formats."""

import mmap
import random
from typing import Any

import attrs
import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.ring.factory import log_writes, make_ring, ring_format
from acrn_dm.ring.ring import DriverSide
from tests.ring.formats import FORMATS, Format, Placed

PAGE, PAGES = 0x1000, 64
RING, TABLES, DATA = 0x1800, 0x6000, 0x8000
SIZE = 16


@attrs.define(eq=False)
class Scene:
    """A driver and a ring in one mapping, and a log of it."""

    fmt: Format
    ram: mmap.mmap
    driver: DriverSide
    ring: Any
    log: bytearray
    out: list[Any] = attrs.field(factory=list)
    tables: int = 0

    @classmethod
    def make(cls, fmt: Format, *, event_idx: bool = False, noted: bool = False) -> "Scene":
        ram = mmap.mmap(-1, PAGE * PAGES)
        layout = fmt.lay_out(RING, SIZE)
        driver = fmt.driver(MemoryMap([(0, ram)]), layout, event_idx=event_idx)
        placed = Placed(layout, fmt.position(layout, 0))
        notes = memoryview(bytearray(ring_format(fmt.feature).notes().length(SIZE))) if noted else None
        # Two regions that touch, so that buffers are cut.
        parts = [(0, memoryview(ram)[: 40 * PAGE]), (40 * PAGE, memoryview(ram)[40 * PAGE :])]
        ring = make_ring(fmt.features(event_idx=event_idx, indirect=True), placed, MemoryMap(parts), notes)
        return cls(fmt, ram, driver, ring, bytearray(PAGES // 8))

    def begin(self, log: bytearray | None = None) -> None:
        self.log = self.log if log is None else log
        layout = self.driver.layout
        log_writes(self.ring, memoryview(self.log), used=layout.used, desc=layout.desc)

    def end(self) -> None:
        log_writes(self.ring, None, used=-1, desc=-1)

    def marked(self) -> set[int]:
        return {page for page in range(8 * len(self.log)) if self.log[page // 8] >> page % 8 & 1}

    def changed(self, before: bytes) -> set[int]:
        return {n for n in range(PAGES) if self.ram[n * PAGE : (n + 1) * PAGE] != before[n * PAGE : (n + 1) * PAGE]}

    def offer(self, rng: random.Random) -> None:
        count = rng.randrange(1, 4)
        if self.driver.free_descriptors < count:
            return
        at = [(rng.randrange(DATA, (PAGES - 4) * PAGE), rng.randrange(1, 3 * PAGE)) for _ in range(count)]
        readable = rng.randrange(count)
        table = None
        if rng.random() < 0.3:
            table, self.tables = TABLES + 64 * (self.tables % 32), self.tables + 1
        self.driver.add_chain(at[:readable], at[readable:], table)
        self.driver.publish()

    def turn(self, rng: random.Random) -> None:
        """What a device does between two looks of the driver."""
        if rng.random() < 0.5:
            self.ring.disable_kicks()
        taken = self.ring.pop_batch(rng.randrange(1, 5))
        if taken and rng.random() < 0.2:
            self.ring.unpop([taken.pop()])
        self.out += taken
        for _ in range(rng.randrange(len(self.out) + 1)):
            chain = self.out.pop(rng.randrange(len(self.out)))
            chain.write(rng.randbytes(rng.randrange(chain.writable_bytes + 1)))
            if rng.random() < 0.3:  # a status byte at the end, whatever the length says
                chain.write_at(chain.writable_bytes - 1, b"\x01")
                self.ring.push(chain, 0)
            else:
                self.ring.push(chain)
        if rng.random() < 0.5:
            self.ring.enable_kicks()
        if rng.random() < 0.2:
            self.ring.hold()
            self.ring.release()
        else:
            self.ring.publish()


@pytest.mark.parametrize("noted", [False, True], ids=["plain", "noted"])
@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_each_page_that_changes_is_marked(fmt: Format, event_idx: bool, noted: bool) -> None:
    rng = random.Random(9)
    scene = Scene.make(fmt, event_idx=event_idx, noted=noted)
    scene.begin()
    most = set()
    for _ in range(400):
        for _ in range(rng.randrange(3)):
            scene.offer(rng)
        before = scene.ram[:]
        scene.turn(rng)
        assert scene.changed(before) <= scene.marked()
        most |= scene.marked()
        scene.log[:] = bytes(len(scene.log))  # as who copies the pages does
        scene.driver.used()
    assert len(most) > 40
    assert 0 not in most, "a page in which nothing is"


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_chain_from_before_the_log_marks_all_when_it_is_returned(fmt: Format) -> None:
    scene = Scene.make(fmt)
    scene.driver.add_chain([], [(DATA, 16)])
    scene.driver.publish()
    (chain,) = scene.ring.pop_batch()
    scene.begin()
    assert scene.marked() == set()
    chain.write(b"x")
    scene.ring.push(chain)
    assert scene.marked() == set(range(PAGES))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_chain_is_marked_in_the_log_that_there_is_when_it_is_returned(fmt: Format) -> None:
    scene = Scene.make(fmt)
    first, second = bytearray(PAGES // 8), bytearray(PAGES // 8)
    scene.begin(first)
    scene.driver.add_chain([], [(0x20800, PAGE)])
    scene.driver.publish()
    (chain,) = scene.ring.pop_batch()
    scene.begin(second)
    scene.ring.push(chain, 1)
    scene.ring.publish()
    assert first == bytes(PAGES // 8)
    used = {scene.driver.layout.desc // PAGE if fmt.feature else scene.driver.layout.used // PAGE}
    assert scene.marked() == {0x20, 0x21} | used


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_ring_whose_log_has_ended_is_as_it_was(fmt: Format) -> None:
    scene = Scene.make(fmt)
    scene.begin()
    scene.end()
    assert not scene.ring.overlaid
    scene.offer(random.Random(1))
    for chain in scene.ring.pop_batch():
        scene.ring.push(chain, 0)
    scene.ring.publish()
    assert scene.marked() == set()
    scene.end()


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_notes_stay_when_a_log_ends(fmt: Format) -> None:
    scene = Scene.make(fmt, noted=True)
    scene.begin()
    scene.end()
    assert scene.ring.overlaid
    scene.end()
    assert scene.ring.overlaid


def test_what_is_behind_the_log_s_end_is_left_out() -> None:
    scene = Scene.make(FORMATS[0])
    guarded = bytearray(8)
    scene.begin(guarded)
    log_writes(scene.ring, memoryview(guarded)[:1], used=1 << 60, desc=-1)
    scene.driver.add_chain([], [(DATA - PAGE, 40 * PAGE)])
    scene.driver.publish()
    (chain,) = scene.ring.pop_batch()
    scene.ring.push(chain, 0)
    scene.ring.publish()
    assert guarded == b"\x80" + bytes(7)
