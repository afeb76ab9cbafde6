"""What of a package only tests reach: the public names it defines and itself never reads.

By name, as a reader with a search would: a name that two classes share is taken for reached when either is. A name is
read where Python code loads it, imports it, or asks for it with ``getattr``; to assign it, to add to it or to pass it
by keyword is no reading. In Cython each word that is no definition counts.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator

import attrs

from tests.source_tree import PYTHON, Source, Tree

_WORD = re.compile(r"[A-Za-z_]\w*")
_CODE_ONLY = re.compile(r'"""(?:.|\n)*?"""|"[^"\n]*"|\'[^\'\n]*\'|#[^\n]*')
_CYTHON_DEFINES = re.compile(
    r"^(?P<depth> *)(?:(?:cdef|cpdef) class (?P<kind>\w+)|(?:def|cpdef)[^(=\n]*?(?P<function>\w+)\(|"
    r"(?P<constant>[A-Z]\w*) = )",
    re.MULTILINE,
)
_BY_NAME = {"getattr", "hasattr", "attrgetter", "methodcaller"}


@attrs.frozen
class Definition:
    """A public name: of a module, or of a class in it."""

    module: str
    owner: str  # the class; empty for a name of the module itself
    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.module.replace('/', '.')}: {self.owner + '.' if self.owner else ''}{self.name}"


def definitions(source: Source) -> Iterator[Definition]:
    """Each public function, class, constant, method, property and field that *source* defines."""
    if source.path.suffix == ".py":
        yield from _python_definitions(source)
    elif source.path.suffix == ".pyx":
        yield from _cython_definitions(source)


def _python_definitions(source: Source) -> Iterator[Definition]:
    tree = ast.parse(source.text)
    scopes: list[tuple[str, list[ast.stmt]]] = [("", tree.body)]
    scopes += [(n.name, n.body) for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and not _is_enum(n)]
    for owner, body in scopes:
        for statement in body:
            for name in _defined(statement):
                if not name.startswith("_"):
                    yield Definition(source.module, owner, name, statement.lineno)


def _is_enum(node: ast.ClassDef) -> bool:
    """Members of an enumeration are reached by their values, which come from a guest or a peer."""
    return any("Enum" in ast.unparse(base) or "Flag" in ast.unparse(base) for base in node.bases)


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name] if not _is_called_by_its_decorator(statement) else []
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def _is_called_by_its_decorator(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """A hook, an attribute's validator or default, a property's setter."""
    names = [ast.unparse(d).split("(")[0] for d in node.decorator_list]
    return any(n == "hookimpl" or n.endswith((".validator", ".default", ".setter", "hookspec")) for n in names)


def _cython_definitions(source: Source) -> Iterator[Definition]:
    owner = ""
    for found in _CYTHON_DEFINES.finditer(source.text):
        if not found["depth"]:
            owner = ""
        name = found["kind"] or found["function"] or found["constant"]
        if not name.startswith("_"):
            yield Definition(source.module, owner, name, source.text.count("\n", 0, found.start()) + 1)
        if found["kind"]:
            owner = found["kind"]


def read_names(source: Source) -> Counter[str]:
    """How often *source* reads each name."""
    if source.path.suffix in PYTHON:
        return Counter(_python_reads(ast.parse(source.text))) if source.path.suffix == ".py" else Counter()
    if source.path.suffix == ".pyx":
        code = _CODE_ONLY.sub("", source.text)
        return Counter(_WORD.findall(_CYTHON_DEFINES.sub("", code)))
    return Counter()


def _python_reads(tree: ast.AST, inside: tuple[str, ...] = ()) -> Iterator[str]:
    """Names read below *tree*; a function's own name read in its body is no reading."""
    for node in ast.iter_child_nodes(tree):
        within = (*inside, node.name) if isinstance(node, ast.FunctionDef) else inside
        yield from (name for name in _reads(node) if name not in within)
        yield from _python_reads(node, within)


def _reads(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        return [node.id if isinstance(node, ast.Name) else node.attr]
    if isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _BY_NAME:
        return [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return []


def unreached(tree: Tree) -> list[Definition]:
    """The public names of *tree* that nothing in it reads."""
    reads: Counter[str] = Counter()
    for source in tree.sources:
        reads += read_names(source)
    return [d for source in tree.sources for d in definitions(source) if not reads[d.name]]
