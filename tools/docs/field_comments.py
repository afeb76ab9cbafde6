"""An extension of Sphinx: a field's trailing comment is what autodoc says of the field.

The records of the package explain a field at the end of its line. Where that is missing, the help text of an option is
taken.
"""

import ast
import inspect
import io
import textwrap
import tokenize
from functools import cache
from importlib import import_module
from typing import Any

import attrs


def setup(app: Any) -> dict[str, bool]:
    """Ask autodoc for every description before it is rendered."""
    app.connect("autodoc-process-docstring", describe_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def describe_field(_app: Any, what: str, name: str, _value: object, _options: object, lines: list[str]) -> None:
    """Put the comment of the field *name* into *lines*, unless it has a docstring of its own."""
    if what not in ("attribute", "property") or any(lines):
        return
    owner, _, field = name.rpartition(".")
    cls = find(owner)
    if cls is not None and (text := meaning(cls, field)):
        lines[:] = [text, ""]


def find(name: str) -> type | None:
    """The class of dotted *name*, in whichever module."""
    module, _, attribute = name.rpartition(".")
    try:
        value = getattr(import_module(module), attribute, None)
    except ImportError:
        return None
    return value if inspect.isclass(value) else None


def meaning(cls: type, field: str) -> str:
    """What is said of *field* where *cls* or a base of it declares it."""
    for base in cls.__mro__:
        if base.__module__.startswith("acrn_dm") and (text := comments(base).get(field)):
            return text
    known = attrs.fields_dict(cls) if attrs.has(cls) else {}
    return str(known[field].metadata.get("help", "")) if field in known else ""


@cache
def comments(cls: type) -> dict[str, str]:
    """Each declared field of *cls* with the comment at the end of its lines."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # of a C type
        return {}
    said = trailing_comments(source)
    (definition,) = ast.parse(source).body
    found = {}
    for node in definition.body if isinstance(definition, ast.ClassDef) else ():
        if not isinstance(node, ast.AnnAssign | ast.Assign) or not (text := said.get(node.end_lineno or 0)):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name):
            found[target.id] = text
    return found


def trailing_comments(source: str) -> dict[int, str]:
    """The comments of *source* that share a line with code, by line number; remarks to tools are none."""
    found, code = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.start[0] in code:
            text = token.string.lstrip("#: ").strip()
            if not text.startswith(("noqa", "type:")):
                found[token.start[0]] = sentence(text)
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            code.add(token.start[0])
    return found


def sentence(text: str) -> str:
    """*text* with a full stop, and with a capital unless it begins with an option."""
    first = text.split(maxsplit=1)[0] if text else ""
    start = text if not first[:1].isalpha() or "=" in first else text[:1].upper() + text[1:]
    return start if start.endswith(".") else f"{start}."
