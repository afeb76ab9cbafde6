"""acrn_dm.ring.packed.rules: each clause seen broken by a driver that breaks it and no other; none by a good driver."""

from collections.abc import Callable
from typing import Any

import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.ring.packed.rules import PackedRules
from acrn_dm.virtio.strict.clauses import CLAUSES
from tests.ring.formats import PACKED_RINGS

RING, DATA, TABLE = 0x1000, 0x8000, 0x7000


class Watched:
    """A packed ring with its driver watched; ``broken`` are the ids of what it broke."""

    def __init__(self, size: int = 4, *, event_idx: bool = False, indirect: bool = True, start: int = 0) -> None:
        self.memory = MemoryMap([(0, bytearray(0x1_0000))])
        self.layout = PACKED_RINGS.lay_out(RING, size)
        self.features = PACKED_RINGS.features(event_idx=event_idx, indirect=indirect)
        self.driver: Any = PACKED_RINGS.driver(self.memory, self.layout, event_idx=event_idx, start=start)
        self.broken: list[str] = []
        self.start, self.flags = start, {"event_idx": event_idx, "indirect": indirect}
        self.watch(fresh=not start)

    def watch(self, *, fresh: bool) -> None:
        ring = PACKED_RINGS.ring(self.memory, self.layout, start=self.start, **self.flags)
        position = PACKED_RINGS.position(self.layout, self.start)
        self.ring = PackedRules(
            ring, self.memory, self.layout, self.features, begin=position, tell=self.tell, fresh=fresh
        )

    def tell(self, clause: str, what: str) -> None:
        assert what
        self.broken.append(clause)

    def expose(self, *descriptors: tuple[int, int, int, int], head: int = 0) -> None:
        self.driver.poke(descriptors, head)
        self.take()

    def take(self) -> list[Any]:
        try:
            return self.ring.pop_batch()
        except GuestError:
            return []  # what becomes of a broken ring is the ring's to say


BREAKS: dict[str, Callable[[], Watched]] = {}


def breaks(clause: str) -> Callable[[Callable[[], Watched]], Callable[[], Watched]]:
    def keep(do: Callable[[], Watched]) -> Callable[[], Watched]:
        BREAKS[clause] = do
        return do

    return keep


@breaks("packed.zeroed")
def _() -> Watched:
    w = Watched()
    w.driver.set_flags(2, 1 << 15)
    w.watch(fresh=True)
    return w


@breaks("packed.altered")
def _() -> Watched:
    w = Watched()
    w.driver.add_chain([(DATA, 4)])
    w.driver.publish()
    (chain,) = w.ring.pop_batch()
    w.memory.write(w.layout.desc, b"\1")
    w.ring.push(chain, 0)
    return w


@breaks("packed.too_many")
def _() -> Watched:
    w = Watched(2)
    for n in range(2):
        w.driver.poke([(DATA, 4, 0, 0)], n)
    w.ring.pop_batch()
    w.expose((DATA, 4, 0, 0), head=2)
    return w


@breaks("packed.list")
def _() -> Watched:
    w = Watched()
    w.expose((DATA, 4, DESC_F_NEXT, 0))
    return w


@breaks("packed.too_long")
def _() -> Watched:
    w = Watched(2)
    w.driver.add_chain([(DATA, 4)] * 3, indirect_table_gpa=TABLE)
    w.driver.publish()
    w.take()
    return w


@breaks("packed.id")
def _() -> Watched:
    w = Watched()
    for _ in range(2):
        w.expose((DATA, 4, 0, 0), head=7)
    return w


@breaks("packed.indirect_list")
def _() -> Watched:
    w = Watched()
    w.memory.write(TABLE, DATA.to_bytes(8, "little") + b"\4\0\0\0\0\0\0\0")
    w.expose((DATA, 4, DESC_F_NEXT, 0), (TABLE, 16, DESC_F_INDIRECT, 0))
    return w


@breaks("packed.indirect_flags")
def _() -> Watched:
    w = Watched()
    w.memory.write(TABLE, DATA.to_bytes(8, "little") + b"\4\0\0\0\0\0\1\0")
    w.expose((TABLE, 16, DESC_F_INDIRECT, 0))
    return w


def asks(flags: int, event: int = 0, *, event_idx: bool = True) -> Watched:
    w = Watched(event_idx=event_idx)
    w.driver.set_driver_event(event, flags)
    w.take()
    return w


BREAKS |= {
    "packed.event_reserved": lambda: asks(1 << 2),
    "packed.event_flags": lambda: asks(3),
    "packed.event_off": lambda: asks(2, 4),
}
SHARED: dict[str, list[tuple[int, int, int, int]]] = {  # clauses of split rings that packed ones have, too
    "desc.write_order": [(DATA, 4, DESC_F_WRITE | DESC_F_NEXT, 0), (DATA, 4, 0, 0)],
    "desc.address": [(1 << 40, 4, 0, 0)],
    "indirect.length": [(TABLE, 17, DESC_F_INDIRECT, 0)],
}


def test_each_clause_of_packed_rings_has_a_driver_that_breaks_it() -> None:
    assert set(BREAKS) == {clause for clause in CLAUSES if clause.startswith("packed.")}


@pytest.mark.parametrize("clause", BREAKS)
def test_clause_that_a_driver_of_packed_rings_breaks_is_named_and_no_other(clause: str) -> None:
    assert set(BREAKS[clause]().broken) == {clause}


@pytest.mark.parametrize("clause", SHARED)
def test_clause_of_any_ring_is_named_for_packed_ones_too(clause: str) -> None:
    w = Watched()
    w.expose(*SHARED[clause])
    assert w.broken == [clause]


def test_table_without_the_feature_is_told() -> None:
    w = Watched(indirect=False)
    w.driver.add_chain([(DATA, 4)], indirect_table_gpa=TABLE)
    w.driver.publish()
    w.take()
    assert w.broken == ["indirect.negotiated"]


def test_event_of_a_descriptor_is_told_without_the_feature() -> None:
    assert asks(2, event_idx=False).broken == ["packed.event_flags"]


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "out of order"])
@pytest.mark.parametrize("start", [0, 4, 7])
@pytest.mark.parametrize("event_idx", [False, True])
def test_good_driver_of_packed_rings_raises_no_alarm(event_idx: bool, start: int, order: int) -> None:
    w = Watched(5, event_idx=event_idx, start=start)
    for n in range(12):
        heads = [w.driver.add_chain([(DATA, 4)] * (1 + n % 2), [(DATA, 4)])]
        heads.append(w.driver.add_chain([(DATA, 4)], indirect_table_gpa=TABLE))
        w.driver.publish()
        w.driver.enable_interrupts()
        chains = w.ring.pop_batch(1)
        if n % 3 == 0:
            w.ring.unpop(chains)
            chains = w.ring.pop_batch(1)
        chains += w.ring.pop_batch()
        for chain in chains[::order]:
            w.ring.push(chain, 0)
        w.ring.publish()
        assert [head for head, _ in w.driver.used()] == heads[::order]
        w.ring.enable_kicks()
    assert w.broken == []


def test_table_as_large_as_memory_is_not_read() -> None:
    w = Watched()
    read, w.ring._read = [], lambda gpa, length: read.append(length)  # type: ignore[method-assign,assignment,func-returns-value]
    w.expose((0, 0xFFFF_FFF0, DESC_F_INDIRECT, 0))
    assert "packed.too_long" in w.broken
    assert read == []
