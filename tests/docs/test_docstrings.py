"""Docstrings of modules and classes begin with what the thing is (ARCHITECTURE.md, Words)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source_tree import Source, Tree, statements

TREE = Tree.read(Path(__file__).resolve().parents[2] / "acrn_dm")
_NO_NOUN = re.compile(
    r"also|and|answers|by|calls|collects|does|escapes|finds|for|from|gives|handed|hands|how|if|implements|in|keeps|listens|"
    r"looks|made|not|on|passes|puts|see|serves|takes|to|used|what|when|where|which|while|who|whose|why|with|writes",
    re.IGNORECASE,
)
_CYTHON_CLASS = re.compile(r"^(?:cdef )?class (\w+)[^\n]*:\n\s+(?:\"\"\"(.*?)\"\"\")?", re.MULTILINE | re.DOTALL)


def docstrings(source: Source) -> Iterator[tuple[str, str | None]]:
    """Name and docstring of a file's module and classes; stubs and declarations have none of their own."""
    if source.path.suffix == ".pyx":
        module = re.match(r"(?:#[^\n]*\n|\s)*\"\"\"(.*?)\"\"\"", source.text, re.DOTALL)
        yield source.module, module and module[1]
        yield from ((found[1], found[2]) for found in _CYTHON_CLASS.finditer(source.text))
    elif source.path.suffix == ".py":
        tree = ast.parse(source.text)
        yield source.module, ast.get_docstring(tree)
        yield from ((n.name, ast.get_docstring(n)) for n in statements(tree) if isinstance(n, ast.ClassDef))


def begins_with_a_noun(docstring: str | None) -> bool:
    return bool(docstring) and not _NO_NOUN.fullmatch(re.split(r"\W", docstring, maxsplit=1)[0])


@pytest.mark.parametrize("source", TREE.sources, ids=lambda s: s.path.relative_to(TREE.root).as_posix())
def test_docstrings_say_first_what_a_thing_is(source: Source) -> None:
    assert [name for name, text in docstrings(source) if not begins_with_a_noun(text)] == []


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".py", "class A: ...\n"),
        (".py", '"""M."""\nclass A:\n    """See the module."""\n'),
        (".py", '"""M."""\nclass A:\n    """What a thing does."""\n'),
        (".pyx", '# cython: x=1\n"""M."""\ncdef class A:\n    """Serves queues."""\n'),
        (".pyx", '# cython: x=1\n"""M."""\ncdef class A(B):\n    cdef int x\n'),
    ],
)
def test_docstring_without_a_noun_is_seen(suffix: str, text: str) -> None:
    found = dict(docstrings(Source(Path(f"a{suffix}"), "a", text)))
    assert not begins_with_a_noun(found["A"])
