"""What ``from acrn_dm import …`` has is enough: every type that a public name mentions is public itself."""

import ast
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import acrn_dm
from acrn_dm import _fastring

# ``acrn_dm._fastring`` is public under its own name. The others are between the machine and its memory, the bus and its
# functions, the transport and its vectors; a loop's set of files and a queue's coalescer are for those who cimport
# them.
ELSEWHERE = {*vars(_fastring), "HugePages", "Generations", "BarWindow", "IrqLine", "Watch", "EventPoll", "Coalescer"}


def ours(hint: object) -> Iterator[type]:
    """The types of this package in an annotation."""
    if isinstance(hint, type) and hint.__module__.startswith("acrn_dm"):
        yield hint
    for part in hint if isinstance(hint, list) else typing.get_args(hint):
        yield from ours(part)


def hints(thing: Any) -> dict[str, object]:
    """What *thing* is annotated with; names that stand in text are looked up where they stand."""
    found = inspect.get_annotations(thing)
    names = vars(inspect.getmodule(thing))
    return {name: _evaluated(hint, names) if isinstance(hint, str) else hint for name, hint in found.items()}


def _evaluated(text: str, names: dict[str, object]) -> object:
    if text.startswith("itertools"):  # generic for the type checker only
        return None
    return eval(text, names)


def annotated(value: Any) -> Iterator[Any]:
    """*value*, or for a class what is public of it and of its bases here."""
    if not inspect.isclass(value):
        yield value
        return
    for base in value.__mro__:
        if base.__module__.startswith("acrn_dm"):
            yield base
            functions = (f for name, f in vars(base).items() if name == "__init__" or not name.startswith("_"))
            plain = (f.fget if isinstance(f, property) else getattr(f, "__func__", f) for f in functions)
            yield from (f for f in plain if inspect.isfunction(f))


def mentioned(value: Any) -> set[str]:
    return {
        kind.__name__
        for thing in annotated(value)
        for name, hint in hints(thing).items()
        if not name.startswith("_")
        for kind in ours(hint)
    }


TYPES = [name for name in acrn_dm.__all__ if inspect.isclass(getattr(acrn_dm, name))]


@pytest.mark.parametrize("name", TYPES)
def test_types_that_a_public_type_mentions_are_public(name: str) -> None:
    assert mentioned(getattr(acrn_dm, name)) - {*acrn_dm.__all__} - ELSEWHERE == set()


@pytest.mark.parametrize("hint", ["Inner", "list[Inner]", "Callable[[Inner], None]", "Inner | None", "type[Inner]"])
def test_a_type_is_found_wherever_it_stands(hint: str) -> None:
    class Inner:
        __module__ = "acrn_dm.inner"

    def function(x: Any) -> None: ...

    function.__annotations__ = {"x": _evaluated(hint, {"Inner": Inner, "Callable": Callable})}
    assert mentioned(function) == {"Inner"}


def test_modules_are_no_public_names() -> None:
    assert {"virtio", "ModuleType"} & {*acrn_dm.__all__} == set()


def stated() -> dict[str, str]:
    """The public names by the statements that type checkers read, each with its module."""
    tree = ast.parse(inspect.getsource(acrn_dm))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and not isinstance(node.test, ast.UnaryOp))
    return {a.asname or "": n.module or "" for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}


def test_names_that_type_checkers_see_are_those_that_python_has_from_the_same_modules() -> None:
    assert stated() == acrn_dm._HOMES


@pytest.mark.parametrize("name", acrn_dm.__all__)
def test_name_is_the_one_of_its_module(name: str) -> None:
    assert getattr(acrn_dm, name) is getattr(importlib.import_module(stated()[name]), name)


def test_names_are_shown_before_they_are_asked_for() -> None:
    assert {*acrn_dm.__all__, "__doc__"} <= {*dir(acrn_dm)}


def test_unknown_name_is_an_attribute_error_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'acrn_dm' has no attribute 'Spline'"):
        acrn_dm.Spline  # type: ignore[attr-defined]  # noqa: B018
