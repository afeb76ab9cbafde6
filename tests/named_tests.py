"""The tests that there are, by the text of their files: what they are called, and what they say of themselves."""

import ast
from functools import cache
from pathlib import Path

import attrs

from tests.source_tree import statements

ROOT = Path(__file__).resolve().parents[1]


@attrs.frozen
class NamedTest:
    """One test function."""

    file: str
    name: str
    docstring: str


@cache
def all_tests() -> tuple[NamedTest, ...]:
    """Those of the package and of the plugins."""
    found = []
    for path in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py")]:
        for node in statements(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.append(NamedTest(path.name, node.name, ast.get_docstring(node) or ""))
    return tuple(found)
