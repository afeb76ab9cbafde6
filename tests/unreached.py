"""What of a package only tests reach: the public names that it defines and that no product code reads.

By name, as a reader with a search would: a name that two classes share is taken for reached when either is. A name is
read where Python code loads it, imports it, or asks for it with ``getattr``; to assign it, to add to it or to pass it
by keyword is no reading. In Cython each word that is no definition counts.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import attrs

from tests.source_tree import Source, Tree

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
    """Public names defined by one statement, of a module or of a class in it: one name, or a table of register numbers,
    which is reached when one of them is.
    """

    module: str
    owner: str  # the class; empty for a name of the module itself
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.module.replace('/', '.')}: {self.owner + '.' if self.owner else ''}{', '.join(self.names)}"


def definitions(source: Source) -> Iterator[Definition]:
    """Each public function, class, constant, method, property and field that *source* defines."""
    if source.path.suffix not in (".py", ".pyx"):
        return
    found = _python_definitions(source) if source.path.suffix == ".py" else _cython_definitions(source)
    for owner, names in found:
        public = tuple(name for name in names if not name.startswith("_"))
        if public:
            yield Definition(source.module, owner, public)


def _python_definitions(source: Source) -> Iterator[tuple[str, list[str]]]:
    tree = ast.parse(source.text)
    yield from (("", _defined(statement)) for statement in tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not _is_enum(node):
            yield from ((node.name, _defined(statement)) for statement in node.body)
            yield from ((node.name, [name]) for name in _set_up(node))


def _set_up(node: ast.ClassDef) -> list[str]:
    """The attributes that ``__init__`` gives the instance."""
    inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    found = [n for init in inits for n in ast.walk(init) if isinstance(n, ast.Attribute)]
    return [n.attr for n in found if isinstance(n.ctx, ast.Store) and ast.unparse(n.value) == "self"]


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


def _cython_definitions(source: Source) -> Iterator[tuple[str, list[str]]]:
    owner = ""
    for found in _CYTHON_DEFINES.finditer(source.text):
        if not found["depth"]:
            owner = ""
        yield owner, [found["kind"] or found["function"] or found["constant"]]
        owner = found["kind"] or owner


def read_names(source: Source) -> Counter[str]:
    """How often *source* reads each name."""
    if source.path.suffix == ".py":
        return Counter(_python_reads(ast.parse(source.text)))
    if source.path.suffix == ".pyx":
        return Counter(_WORD.findall(_CYTHON_DEFINES.sub("", _CODE_ONLY.sub("", source.text))))
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


def unreached(tree: Tree, users: Iterable[Source] = ()) -> list[Definition]:
    """The definitions of *tree* that neither it nor *users* read a name of."""
    reads = sum((read_names(source) for source in (*tree.sources, *users)), Counter[str]())
    found = [definition for source in tree.sources for definition in definitions(source)]
    return [d for d in found if not any(reads[name] for name in d.names)]
