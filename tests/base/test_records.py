"""acrn_dm.base.records: classes that compare, hash and show themselves as attrs's own do."""

from typing import Any

import attrs
import pytest

from acrn_dm.base import records

MAKERS = {"frozen": (records.frozen, attrs.frozen), "define": (records.define, attrs.define)}


def both(make: str, **options: Any) -> tuple[Any, Any]:
    """A class made by us and the same made by attrs."""

    def body() -> type:
        class Pair:
            a: int = attrs.field(repr=hex)
            b: str = attrs.field(default="x", eq=str.lower)
            _c: int = attrs.field(default=0, eq=False)
            d: object = attrs.field(default=None, repr=False)

        return Pair

    ours, theirs = MAKERS[make]
    return ours(**options)(body()), theirs(**options)(body())  # type: ignore[call-overload]


@pytest.mark.parametrize("make", MAKERS)
def test_text_is_that_of_attrs(make: str) -> None:
    ours, theirs = both(make)
    assert repr(ours(a=16, c=2)) == repr(theirs(a=16, c=2))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("one", "other"), [({}, {}), ({"b": "X"}, {}), ({"c": 1}, {}), ({"b": "y"}, {}), ({"d": 1}, {})]
)
def test_equality_is_that_of_attrs(make: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    ours, theirs = both(make)
    assert (ours(a=1, **one) == ours(a=1, **other)) is (theirs(a=1, **one) == theirs(a=1, **other))
    assert (ours(a=1, **one) != ours(a=1, **other)) is (theirs(a=1, **one) != theirs(a=1, **other))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("options", [{}, {"eq": False}])
def test_what_can_be_hashed_is_what_attrs_can_hash(make: str, options: dict[str, Any]) -> None:
    def hashable(kind: Any) -> bool:
        try:
            hash(kind(a=1))
        except TypeError:
            return False
        return True

    ours, theirs = both(make, **options)
    assert hashable(ours) is hashable(theirs)


def test_equal_records_have_one_hash() -> None:
    ours, _ = both("frozen")
    assert hash(ours(a=1, b="X", c=1)) == hash(ours(a=1, b="x"))


@pytest.mark.parametrize("make", MAKERS)
def test_identity_counts_where_it_is_asked_for(make: str) -> None:
    ours, _ = both(make, eq=False)
    assert ours(a=1) != ours(a=1)


def test_another_class_of_the_same_fields_is_another_record() -> None:
    assert both("frozen")[0](a=1) != both("frozen")[0](a=1)


def test_methods_of_the_class_are_its_own() -> None:
    @records.frozen
    class Own:
        a: int

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "own"

    assert (Own(1) == 5, hash(Own(1)), repr(Own(1))) == (True, 7, "own")


def test_text_of_what_is_in_itself_ends() -> None:
    @records.define
    class Node:
        next: object = None

    node = Node()
    node.next = node
    assert repr(node).endswith("Node(next=...)")


def test_text_of_what_is_half_made_is_shown_as_attrs_does() -> None:
    @records.define
    class Half:
        a: int = attrs.field(init=False)

    assert repr(Half()).endswith("Half(a=NOTHING)")
