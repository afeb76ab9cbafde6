"""What betrays that a source knows how a ring is laid out: names of ring formats, of their fields, and sums of offsets.

Python is read with ``ast``, Cython by its tokens, of which names and sums of an address and a number are judged.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

# A format's name in an identifier: SplitRing, packed_layout, RING_PACKED. ``split`` and ``packed`` alone say nothing.
FORMAT = re.compile(
    r"(split|packed)_?(ring|format|layout|queue|virtq)|(ring|virtq|desc)_?(split|packed)", re.IGNORECASE
)
FIELDS = {
    "DESC", "USED_ELEMENT", "HEADER_BYTES", "EVENT_BYTES", "avail_bytes", "used_bytes", "AVAIL_F_NO_INTERRUPT",
    "USED_F_NO_NOTIFY", "desc_at", "avail_flags_at", "avail_idx_at", "avail_entry_at", "used_event_at", "used_flags_at",
    "used_idx_at", "used_element_at", "avail_event_at", "FR_DESC_SIZE", "FrPacked", "FrRing",
}  # fmt: skip
INSIDE = re.compile(r"acrn_dm\.ring\.(split|packed|native)\b")  # modules that only ``ring`` imports
PARTS = {"desc", "avail", "used"}
LENGTHS = {"size", "entries", "num", "queue_size"}
DESCRIPTOR = re.compile(r"[<=]?QIHH$")  # the struct of a descriptor


def violations(text: str, *, cython: bool) -> list[str]:
    """What *text* knows of a ring's format, each with its line."""
    found = _in_cython(text) if cython else _in_python(ast.parse(text))
    return [f"{line}: {what}" for line, what in sorted(set(found))]


def _in_python(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        for name in _names(node):
            if FORMAT.search(name) or name in FIELDS or INSIDE.match(name):
                yield node.lineno, name  # type: ignore[attr-defined]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and DESCRIPTOR.match(node.value):
            yield node.lineno, node.value
        if isinstance(node, ast.BinOp) and (_is_offset(node) or _is_length(node)):
            yield node.lineno, ast.unparse(node)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(f"{node.module}.{a.name}" for a in node.names), *(a.name for a in node.names)]
    if isinstance(node, ast.Import):
        return [a.name for a in node.names]
    return [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _number(node: ast.AST, *values: int) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and (not values or node.value in values)


def _is_offset(node: ast.BinOp) -> bool:
    """An address of a part and a number: ``queue.used + 2``."""
    sides = (node.left, node.right)
    plus = isinstance(node.op, ast.Add)
    return plus and any(_last(side) in PARTS for side in sides) and any(_number(side) for side in sides)


def _is_length(node: ast.BinOp) -> bool:
    """``16 * size``, or a header and entries of 2 or 8 bytes: ``4 + 2 * size``."""
    if isinstance(node.op, ast.Mult):
        return _is_product(node, 16)
    if not isinstance(node.op, ast.Add) or not (_number(node.left, 4, 6) or _number(node.right, 4, 6)):
        return False
    return any(isinstance(side, ast.BinOp) and _is_product(side, 2, 8) for side in (node.left, node.right))


def _is_product(node: ast.BinOp, *factors: int) -> bool:
    sides = (node.left, node.right)
    product = isinstance(node.op, ast.Mult)
    return product and any(_number(side, *factors) for side in sides) and any(_last(side) in LENGTHS for side in sides)


def _in_cython(text: str) -> Iterator[tuple[int, str]]:
    words: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER):
            words.append(token)
    for i, token in enumerate(words):
        after = [word.string for word in words[i + 1 : i + 3]]
        if token.type == tokenize.NAME and (FORMAT.search(token.string) or token.string in FIELDS):
            yield token.start[0], token.string
        if token.string == "ring" and after[:1] == ["."] and after[1:] in (["split"], ["packed"], ["native"]):
            yield token.start[0], f"ring.{after[1]}"
        if token.string in PARTS and after[:1] == ["+"] and after[1].isdigit():
            yield token.start[0], f"{token.string} + {after[1]}"
