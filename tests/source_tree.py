"""The sources of a package as the layer rules see them: which module imports which, and how long its parts are.

Python is read with ``ast``, Cython by its logical lines: an import counts wherever it stands, in a function, under
TYPE_CHECKING, in a stub or as a ``cimport``.
"""

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

PYTHON, CYTHON = (".py", ".pyi"), (".pyx", ".pxd")
GENERATED = {"__pycache__", ".so", ".c"}  # beside their sources after a build
_FROM = re.compile(r"from\s+([\w.]+)\s+c?import\s+(.+)", re.DOTALL)
_IMPORT = re.compile(r"c?import\s+(.+)", re.DOTALL)
_FUNCTION = re.compile(r"(?:cpdef|cdef|def)\s+(?!class\b|struct\b|union\b|enum\b|extern\b)[^=]*?(\w+)\s*\(")
_STRING = re.compile(r'"""(?:.|\n)*?"""|"[^"\n]*"|\'[^\'\n]*\'')


@attrs.frozen
class Import:
    """One import: the dotted name that is asked for, and the line."""

    name: str
    line: int


@attrs.frozen
class Function:
    """One function of a file and the number of its lines, from ``def`` to the last."""

    name: str
    lines: int


@attrs.frozen
class Source:
    """One file of the tree. *module* is its path below the root without suffix: ``pci/bus``, ``pci/__init__``."""

    path: Path
    module: str
    text: str

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    def imports(self) -> list[Import]:
        """Each name that an import of this file asks for, in full: ``from a import b`` asks for ``a.b``."""
        return _python(self.text).imports if self.path.suffix in PYTHON else list(_cython_imports(self.text))

    def functions(self) -> list[Function]:
        python = self.path.suffix in PYTHON
        return list(_python_functions(self.text) if python else _cython_functions(self.text))

    def named_modules(self) -> list[str]:
        """Dotted names in strings of a Python file, and names of functions that import by name."""
        return _python(self.text).named if self.path.suffix in PYTHON else []


@attrs.define(eq=False, slots=False)
class Tree:
    """All sources below the folder of one package."""

    root: Path
    sources: list[Source]

    @classmethod
    def read(cls, root: Path) -> "Tree":
        paths = sorted(p for p in root.rglob("*") if p.suffix in PYTHON + CYTHON)
        return cls(root, [Source(p, p.relative_to(root).with_suffix("").as_posix(), p.read_text()) for p in paths])

    @property
    def package(self) -> str:
        return self.root.name

    @functools.cached_property
    def modules(self) -> set[str]:
        return {source.module for source in self.sources}

    def resolve(self, name: str) -> str | None:
        """The module of this tree that the import of *name* reaches; None if *name* is not of this package."""
        parts = name.split(".")
        if parts[0] != self.package:
            return None
        for n in range(len(parts), 0, -1):
            path = "/".join(parts[1:n])
            for module in (path, f"{path}/__init__".lstrip("/")):
                if module in self.modules:
                    return module
        raise AssertionError(f"{name} is nowhere in {self.package}")

    @functools.cached_property
    def edges(self) -> list[tuple[Source, int, str]]:
        """Each import of one module of the package by another: the file, the line, the module."""
        wanted = [(source, i.line, self.resolve(i.name)) for source in self.sources for i in source.imports()]
        return [(s, line, target) for s, line, target in wanted if target is not None and target != s.module]

    def folders(self) -> dict[str, list[str]]:
        """Each folder and the names of its files, without what a build puts beside them."""
        files = (p for p in sorted(self.root.rglob("*")) if p.is_file() and not GENERATED & {p.suffix, p.parent.name})
        groups = itertools.groupby(sorted(files, key=lambda p: (p.parent, p.name)), key=lambda p: p.parent)
        return {f"{folder.relative_to(self.root).as_posix()}/": [p.name for p in group] for folder, group in groups}


@attrs.frozen(kw_only=True)
class _Python:
    """What a Python file says, read once for all rules that ask for it."""

    imports: list[Import]
    named: list[str]


@functools.cache
def _python(text: str) -> _Python:
    nodes = list(ast.walk(ast.parse(text)))
    return _Python(
        imports=[found for node in nodes for found in _python_imports(node)],
        named=[name for node in nodes for name in _by_name(node)],
    )


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All below *node*; an expression, of which there are many more, has none."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from statements(child)


def _python_functions(text: str) -> Iterator[Function]:
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function(node.name, (node.end_lineno or node.lineno) - node.lineno + 1)


def _python_imports(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        yield from (Import(f"{base}.{a.name}", node.lineno) for a in node.names)
    elif isinstance(node, ast.Import):
        yield from (Import(a.name, node.lineno) for a in node.names)


def _cython_imports(text: str) -> Iterator[Import]:
    for line, statement in _logical_lines(text):
        if found := _FROM.match(statement):
            yield from (Import(f"{found[1]}.{name}", line) for name in _names(found[2]))
        elif found := _IMPORT.match(statement):
            yield from (Import(name, line) for name in _names(found[1]))


def _names(listed: str) -> list[str]:
    return [part.split()[0] for part in listed.strip().strip("()").split(",") if part.strip()]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Statements of a Cython file without strings and comments, each with its first line; brackets join lines."""
    text = _STRING.sub(lambda found: '""' + "\n" * found[0].count("\n"), text)
    start, joined = 1, ""
    for number, raw in enumerate(text.splitlines(), 1):
        joined, start = (joined, start) if joined else ("", number)
        joined += raw.split("#")[0].strip().rstrip("\\") + " "
        if joined.count("(") <= joined.count(")") and not raw.rstrip().endswith("\\"):
            yield start, joined.strip()
            joined = ""


def _cython_functions(text: str) -> Iterator[Function]:
    lines = text.splitlines()
    for number, raw in enumerate(lines):
        if found := _FUNCTION.match(raw.strip()):
            yield Function(found[1], _length(lines[number:]))


def _length(lines: list[str]) -> int:
    """Lines of the function that begins in the first of *lines*; what is no deeper than its ``def`` is behind it."""
    depth = len(lines[0]) - len(lines[0].lstrip())
    length = 1
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            if len(line) - len(line.lstrip()) <= depth and not line.strip().startswith(")"):
                break
            length = number
    return length


def _by_name(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.Attribute) and node.attr == "import_module":
        return [node.attr]
    if isinstance(node, ast.Name) and node.id == "__import__":
        return [node.id]
    if isinstance(node, ast.ImportFrom) and node.module == "importlib":
        return [alias.name for alias in node.names]
    return []
