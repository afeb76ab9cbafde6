"""The contract says what it means: no annotation in it is ``Any``."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm import contract

FILES = sorted(Path(contract.__path__[0]).glob("*.py"))

# A field's type is what the class declares it with, and the call that describes the field is assigned to it: attrs'
# own ``field`` has no other type, either.
NO_OTHER_WAY = {("options.py", "option")}


def names(node: ast.AST) -> Iterator[str]:
    """Every name in *node*, also in annotations that are written as text."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr
        for field in ("annotation", "returns"):
            text = getattr(inner, field, None)
            for constant in ast.walk(text) if text is not None else ():
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                    yield from names(ast.parse(constant.value))


def users_of_any(text: str) -> list[str]:
    """The top-level statements that use ``Any``, by name where they have one."""
    found = [s for s in ast.parse(text).body if "Any" in names(s)]
    return [getattr(s, "name", f"line {s.lineno}") for s in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_contract_has_no_any(path: Path) -> None:
    allowed = {name for file, name in NO_OTHER_WAY if file == path.name}
    assert set(users_of_any(path.read_text())) == allowed


@pytest.mark.parametrize(
    "text",
    [
        "def f(vm: Any) -> None: ...",
        "def f() -> typing.Any: ...",
        "class f:\n    x: Callable[[Any], None]",
        "def f(a: 'attrs.Attribute[Any]') -> None: ...",
        "class f:\n    def g(self) -> None:\n        x: list[Any] = []",
    ],
)
def test_every_way_to_write_it_is_found(text: str) -> None:
    assert users_of_any(text) == ["f"]
