"""Strategies of options, rings and raw descriptors: what is drawn is taken, and the oracle agrees."""

import enum
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acrn_dm._fastring import MemoryMap
from acrn_dm.contract.option_types import ByteSize
from acrn_dm.contract.options import from_mapping, option
from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.features import EVENT_IDX, INDIRECT_DESC, PACKED
from acrn_dm.testing.strategies import RingCase, descriptors, options, rings

QUICK = settings(max_examples=50, derandomize=True, database=None, deadline=None)


def draw(strategy: st.SearchStrategy[Any]) -> list[Any]:
    drawn: list[Any] = []

    @QUICK
    @given(strategy)
    def keep(value: Any) -> None:
        drawn.append(value)

    keep()
    return drawn


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def _small(instance: object, attribute: object, value: int) -> None:
    if not 0 <= value <= 64:
        raise ValueError("too much")


@attrs.frozen(kw_only=True)
class Config:
    path: Path = option(help="")
    count: int = option(help="", default=1, validator=_small)
    size: ByteSize = option(help="", default=ByteSize(1))
    ratio: float = option(help="", default=0.5)
    on: bool = option(help="", default=False)
    name: str | None = option(help="", default=None)
    colour: Colour = option(help="", default=Colour.RED)
    mode: Literal["fast", "slow"] = option(help="", default="fast")
    words: tuple[str, ...] = option(help="", default=())


@QUICK
@given(options(Config))
def test_options_are_taken_by_their_class(table: dict[str, object]) -> None:
    made = from_mapping(Config, table, "test")
    assert made.path.is_absolute()
    assert 0 <= made.count <= 64


def test_each_field_is_drawn_and_left_out() -> None:
    drawn = draw(options(Config))
    for field in attrs.fields(Config)[1:]:
        assert {field.name in table for table in drawn} == {True, False}, field.name


def test_given_strategy_is_used() -> None:
    assert {table.get("count") for table in draw(options(Config, count=st.just(7)))} == {None, 7}


def test_field_of_another_type_needs_its_own() -> None:
    @attrs.frozen
    class Odd:
        thing: complex = option(help="", default=0j, converter=complex)

    with pytest.raises(TypeError, match="complex"):
        options(Odd)
    options(Odd, thing=st.just(1j))


@QUICK
@given(rings())
def test_ring_has_the_chains_of_its_case(case: RingCase) -> None:
    ram = bytearray(1 << 18)
    memory = MemoryMap([(0, ram)])
    driver = case.fill(memory, 0x1000)
    fmt = ring_format(case.features)
    ring = fmt.make_ring(case.features, memory, driver.layout, driver.position)
    chains = ring.pop_batch(64)
    assert [(chain.read(), chain.writable_bytes) for chain in chains] == [
        (b"".join(out), sum(in_)) for (out, in_), _ in case.chains
    ]
    chains.clear()
    ring.close()
    memory.close()


def test_rings_wrap_and_are_of_every_kind() -> None:
    drawn: list[RingCase] = draw(rings())
    assert {case.features & EVENT_IDX for case in drawn} == {0, EVENT_IDX}
    assert {case.features & PACKED for case in drawn} == {0, PACKED}
    assert any(case.features & INDIRECT_DESC and any(indirect for _, indirect in case.chains) for case in drawn)
    assert any(case.start + len(case.chains) > 0xFFFF for case in drawn)


def test_raw_descriptors_loop_and_leave_memory() -> None:
    drawn: list[list[tuple[int, int, int, int]]] = draw(descriptors())
    rows = [row for rows in drawn for row in rows]
    assert any(gpa >= 1 << 40 for gpa, *_ in rows)
    assert any(flags & 1 and following == at for rows in drawn for at, (_, _, flags, following) in enumerate(rows))
