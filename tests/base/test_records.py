"""acrn_dm.base.records: classes that are made, filled, compared and shown as attrs's own are."""

import copy
import inspect
import linecache
import pickle
import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import attrs
import pytest

from acrn_dm.base import records

MAKERS = {"frozen": (records.frozen, attrs.frozen), "define": (records.define, attrs.define)}


def pair() -> type:
    class Pair:
        a: int = attrs.field(repr=hex)
        b: str = attrs.field(default="x", eq=str.lower)
        _c: int = attrs.field(default=0, eq=False)
        d: object = attrs.field(default=None, repr=False)

    return Pair


def rich() -> type:
    """One field of each sort."""

    class Rich:
        KINDS: ClassVar[int] = 7
        quoted: "ClassVar[int]" = 8
        first: int
        second: int = 2
        made: list[int] = attrs.field(factory=list)
        told: str = attrs.field(default="t", alias="called")
        _hidden: int = 3
        named: int = attrs.field(default=4, kw_only=True)
        later: int = attrs.field(init=False)
        fixed: int = attrs.field(default=5, init=False)
        owned: int = attrs.field()

        @owned.default
        def _owned(self) -> int:
            return self.first * 10

        def __attrs_post_init__(self) -> None:
            self.made.append(self.owned)

    return Rich


def checked() -> type:
    class Checked:
        number: int = attrs.field(converter=int, validator=attrs.validators.in_(range(10)))
        other: int = attrs.field(default="3", converter=int)

    return Checked


def both(make: str, body: Callable[[], type] = pair, **options: Any) -> tuple[Any, Any]:
    """A class made by us and the same made by attrs."""
    ours, theirs = MAKERS[make]
    return ours(**options)(body()), theirs(**options)(body())  # type: ignore[call-overload]


def compiled(cls: type) -> list[str]:
    """The methods of *cls* whose source attrs has compiled."""
    return [name for name in linecache.cache if name.startswith("<attrs generated") and cls.__qualname__ in name]


def outcome(call: Callable[[], object]) -> object:
    """What *call* returns, or the exception's class and text."""
    try:
        return call()
    except Exception as e:
        return type(e), str(e)


def said(a: "attrs.Attribute[Any]") -> list[object]:
    """What a field says; its default may be a function of its class."""
    return [a.name, a.alias, type(a.default), a.init, a.kw_only, a.type, a.repr, a.eq]


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


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("options", [{}, {"kw_only": True}])
@pytest.mark.parametrize(
    ("args", "given"),
    [
        ((1,), {}),
        ((1, 9, [8]), {"called": "c", "hidden": 6, "named": 5, "owned": 1}),
        ((), {"first": 1, "second": 3, "made": [2]}),
        ((), {}),
        ((1,), {"first": 2}),
        ((1,), {"nothing": 2}),
        ((1,), {"told": "t"}),
        ((1,), {"later": 2}),
        ((1, 2, [], "t", 3, 4, 5), {}),
        ((), {"first": 1, "_hidden": 2}),
    ],
)
def test_arguments_are_those_of_attrs(
    make: str, options: dict[str, Any], args: tuple[Any, ...], given: dict[str, Any]
) -> None:
    def made(kind: Any) -> object:
        return outcome(lambda: repr(kind(*copy.deepcopy(args), **copy.deepcopy(given))))

    ours, theirs = both(make, rich, **options)
    assert made(ours) == made(theirs)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("options", [{}, {"kw_only": True}])
def test_signature_fields_and_patterns_are_those_of_attrs(make: str, options: dict[str, Any]) -> None:
    ours, theirs = both(make, rich, **options)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert ours.__match_args__ == theirs.__match_args__
    assert list(map(said, attrs.fields(ours))) == list(map(said, attrs.fields(theirs)))
    assert attrs.fields(ours).told.name == "told"
    assert (ours.__name__, ours.__qualname__, ours.__module__) == (theirs.__name__, theirs.__qualname__, __name__)


def test_signature_is_the_class_s_own() -> None:
    @records.define
    class Called:
        a: int

        def __call__(self, word: str) -> None: ...

    class Below(Called):
        def __init__(self, other: int) -> None:
            super().__init__(a=other)

    assert list(inspect.signature(Called(a=1)).parameters) == ["word"]
    assert list(inspect.signature(Below).parameters) == ["other"]
    assert (attrs.has(Below), Below(3).a) == (True, 3)


@pytest.mark.parametrize("value", ["4", "12", "x"])
def test_values_are_converted_and_then_checked(value: str) -> None:
    ours, theirs = both("frozen", checked)
    assert outcome(lambda: attrs.astuple(ours(value))) == outcome(lambda: attrs.astuple(theirs(value)))
    with attrs.validators.disabled():
        assert outcome(lambda: ours(value).number) == outcome(lambda: theirs(value).number)


def test_values_that_are_set_later_are_checked_too() -> None:
    ours, _ = both("define", checked)
    one = ours(1)
    one.number = "7"
    assert one.number == 7
    with pytest.raises(ValueError, match="in_"):
        one.number = 12


def test_functions_of_attrs_take_records() -> None:
    ours, _ = both("frozen", rich)
    one = ours(1, called="c")
    assert repr(attrs.evolve(one, first=2, made=[])) == repr(ours(2, called="c", owned=10))
    assert attrs.asdict(both("frozen")[0](a=1, c=2)) == {"a": 1, "b": "x", "_c": 2, "d": None}


def test_frozen_record_stays_as_it_is() -> None:
    ours, _ = both("frozen")
    one = ours(a=1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.a = 2
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del one.a
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        attrs.define(type("Below", (ours,), {}))(a=1).a = 2


@pytest.mark.parametrize("make", MAKERS)
def test_instances_have_places_for_their_fields_only(make: str) -> None:
    ours, _ = both(make)
    one = ours(a=1)
    assert not hasattr(one, "__dict__")
    assert weakref.ref(one)() is one
    with pytest.raises(AttributeError):
        one.other = 2


@records.frozen(kw_only=True)
class Sent:
    a: int
    b: list[int] = attrs.field(factory=list)


def test_records_are_copied_and_pickled() -> None:
    one = Sent(a=1, b=[2])
    assert pickle.loads(pickle.dumps(one)) == copy.copy(one) == copy.deepcopy(one) == one
    assert copy.deepcopy(one).b is not one.b


def test_fields_are_handed_down() -> None:
    @records.frozen(kw_only=True)
    class Below(Sent):
        c: int = 3

        def text(self) -> str:
            return super().__repr__() + __class__.__name__  # type: ignore[name-defined]

    assert [(a.name, a.inherited) for a in attrs.fields(Below)] == [("a", True), ("b", True), ("c", False)]
    assert (Below(a=1) == Below(a=1), Below(a=1) == Below(a=1, c=4), Below(a=1) == Sent(a=1)) == (True, False, False)
    assert Below(a=1).text().endswith("Below(a=1, b=[], c=3)Below")
    assert (Below.__slots__, compiled(Below)) == (("c",), [])


def test_fields_are_handed_down_to_a_class_of_attrs_and_back() -> None:
    @attrs.frozen(kw_only=True)
    class Middle(Sent):
        c: int = 3

    @records.frozen(kw_only=True)
    class Below(Middle):
        d: int = 4

    assert repr(Below(a=1)).endswith("Below(a=1, b=[], c=3, d=4)")
    assert (Middle(a=1) == Middle(a=1), Below(a=1) == Below(a=1, b=[5])) == (True, False)


def test_what_is_not_done_here_attrs_does() -> None:
    @records.define(order=True)
    class Ordered:
        a: int

    @records.frozen
    class Kept:
        a: int

        def __getattr__(self, name: str) -> str:
            return name

    @records.define
    class Computed:
        a: int

        @cached_property
        def twice(self) -> int:
            return 2 * self.a

    computed = Computed(2)
    assert (Ordered(1) < Ordered(2), Kept(1).b, computed.twice) == (True, "b", 4)  # type: ignore[operator]
    assert all(map(compiled, (Ordered, Kept, Computed)))


def test_nothing_is_compiled_for_a_record() -> None:
    before = len(linecache.cache)
    ours: Any = records.frozen(pair())
    one = ours(1)
    assert (attrs.fields(ours).a.type, hash(one), repr(one)[-5:]) == (int, hash(ours(1)), "_c=0)")
    assert len(linecache.cache) == before


def test_mandatory_field_behind_one_with_a_default_is_refused() -> None:
    with pytest.raises(ValueError, match="No mandatory attributes allowed"):

        @records.define
        class Wrong:
            a: int = 1
            b: int


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
