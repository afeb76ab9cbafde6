"""The rules that the layers of ARCHITECTURE.md mean, each a function that lists what breaks it.

The table there is the only place where a layer is named; ``test_layers`` holds the package to it, ``test_layer_rules``
shows that each rule sees its fault.
"""

import ast
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import attrs

from tests.source_tree import CYTHON, Source, Tree

FUNCTION_LINES = 40
FILE_LINES = 450
FOLDER_FILES = 14
TOP_FILES = 4
# What the package may import besides itself and the standard library, and Cython files besides that.
FOREIGN = {"attrs", "pluggy"}
CYTHON_OWN = {"cython", "cpython", "libc", "posix"}
STUB_OWN = {"typing_extensions"}
EXTRAS = {"testing/strategies": {"hypothesis"}}  # what only these folders import, for those who have it
_ROW = re.compile(r"^\| *(?P<cells>.*?) *\|$")


@attrs.frozen
class Place:
    """Where a module stands: the row of the table (0 is the top) and the unit in it."""

    row: int
    layer: str
    unit: str


@attrs.frozen
class Entry:
    """One path of the table and the unit that it makes. ``devices/*`` makes a unit of each thing in ``devices/``."""

    row: int
    layer: str
    unit: str
    path: str

    def place(self, module: str) -> Place | None:
        wanted, parts = self.path.split("/"), module.split("/")
        if len(parts) < len(wanted) or any(w not in ("*", p) for w, p in zip(wanted, parts, strict=False)):
            return None
        unit = "/".join(parts[: len(wanted)]) if "*" in wanted else self.unit
        return Place(self.row, self.layer, unit)

    @property
    def precision(self) -> tuple[int, bool]:
        """What decides between two entries for one module: the longer one; at one length the one without a star."""
        return self.path.count("/"), "*" not in self.path


class Layers:
    """The table of layers, read from the section *heading* of a document; entries of one row are units of their own."""

    def __init__(self, document: str) -> None:
        rows = list(table(document, "Layers", 0))
        assert rows, "no table of layers"
        self.entries = [
            Entry(n, layer, words, path)
            for n, (layer, cell, *_) in enumerate(rows)
            for words in re.findall(r"`([^`]+)`", cell)
            for path in _paths(words)
        ]

    def place(self, module: str) -> Place | None:
        """The place of *module*; None if no entry has it."""
        found = [(e.precision, place) for e in self.entries if (place := e.place(module)) is not None]
        return max(found, key=lambda item: item[0])[1] if found else None


def table(document: str, heading: str, number: int) -> Iterator[list[str]]:
    """The rows of the *number*-th table below *heading*, without its head."""
    section = document.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"(?:^\|.*\n)+", section + "\n", re.MULTILINE)
    for line in blocks[number].splitlines()[2:] if number < len(blocks) else ():
        if found := _ROW.match(line):
            yield [cell.strip() for cell in found["cells"].split(" | ")]


def _paths(words: str) -> list[str]:
    """``a/{b,c}/`` means the two paths ``a/b`` and ``a/c``, one unit; a suffix or the last slash says nothing."""
    braces = re.fullmatch(r"(.*)\{(.*)\}(.*)", words)
    spelled = [f"{braces[1]}{part}{braces[3]}" for part in braces[2].split(",")] if braces else [words]
    return [re.sub(r"(/|\.\w+)$", "", path) for path in spelled]


def unplaced(tree: Tree, layers: Layers) -> list[str]:
    """Modules that no entry of the table has."""
    return sorted(module for module in tree.modules if layers.place(module) is None)


def stale(tree: Tree, layers: Layers) -> list[str]:
    """Entries of the table that no module needs, or that stand twice."""
    paths = [entry.path for entry in layers.entries]
    unused = [e.path for e in layers.entries if not any(e.place(module) for module in tree.modules)]
    return sorted({*unused, *(path for path in paths if paths.count(path) > 1)})


def upward(tree: Tree, layers: Layers) -> list[str]:
    """Imports of a higher row, or of another unit of the same row."""
    found = []
    for source, line, target in tree.edges:
        own, other = layers.place(source.module), layers.place(target)
        if own and other and (other.row < own.row or (other.row == own.row and other.unit != own.unit)):
            found.append(f"{_where(tree, source)}:{line} ({own.layer}) imports {target} ({other.layer})")
    return found


def cycles(tree: Tree) -> list[list[str]]:
    """Groups of modules that import one another, directly or in a circle."""
    edges: dict[str, set[str]] = {module: set() for module in tree.modules}
    for source, _, target in tree.edges:
        edges[source.module].add(target)
    reach = {module: _reachable(edges, module) for module in edges}
    groups = {frozenset({m} | {o for o in reach[m] if m in reach[o]}) for m in edges if m in reach[m]}
    return sorted(sorted(group) for group in groups)


def _reachable(edges: Mapping[str, Collection[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(edges[start])
    while todo:
        if (module := todo.pop()) not in seen:
            seen.add(module)
            todo += edges[module]
    return seen


def foreign(tree: Tree) -> list[str]:
    """Imports of what is neither this package, nor the standard library, nor a dependency: tests and lab among them."""
    found = []
    for source in tree.sources:
        own = CYTHON_OWN if source.path.suffix in CYTHON else STUB_OWN if source.path.suffix == ".pyi" else set()
        extra = EXTRAS.get(source.module.rpartition("/")[0], set())
        allowed = {tree.package, *sys.stdlib_module_names, *FOREIGN, *own, *extra}
        wrong = {i.name.split(".")[0] for i in source.imports()} - allowed
        found += [f"{_where(tree, source)} imports {name or 'relatively'}" for name in sorted(wrong)]
    return found


def by_name(tree: Tree, listed: Collection[str]) -> list[str]:
    """Modules that import by name or name a module in a string, and are not *listed*; listed ones that do not."""
    found = {_where(tree, s) for s in tree.sources if any(_reaches(tree, s, word) for word in s.named_modules())}
    return sorted(found ^ set(listed))


def _reaches(tree: Tree, source: Source, word: str) -> bool:
    if word in ("import_module", "__import__"):
        return True
    path = word.removeprefix(f"{tree.package}.").replace(".", "/")
    home = source.module.rpartition("/")[0]
    return word.startswith(f"{tree.package}.") and path != home and bool({path, f"{path}/__init__"} & tree.modules)


def long_functions(tree: Tree) -> list[str]:
    """Functions over FUNCTION_LINES lines."""
    return [
        f"{_where(tree, source)} {function.name}: {function.lines}"
        for source in tree.sources
        for function in source.functions()
        if function.lines > FUNCTION_LINES
    ]


def long_files(tree: Tree) -> list[str]:
    """Files over FILE_LINES lines."""
    return [f"{_where(tree, source)}: {source.lines}" for source in tree.sources if source.lines > FILE_LINES]


def full_folders(tree: Tree) -> list[str]:
    """Folders with more than FOLDER_FILES files; the top one with more than TOP_FILES Python files."""
    found = [f"{folder}: {len(files)}" for folder, files in tree.folders().items() if len(files) > FOLDER_FILES]
    loose = [name for name in tree.folders().get("./", ()) if name.endswith(".py")]
    return found + ([f"loose: {', '.join(loose)}"] if len(loose) > TOP_FILES else [])


def private_names(source: Path, public: Mapping[str, Collection[str]]) -> list[str]:
    """What a plugin imports of the package besides *public*: module name -> its public names."""
    found = []
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] == "acrn_dm"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "acrn_dm":
            names = public.get(node.module or "", ())
            found += [f"{node.module}.{a.name}" for a in node.names if a.name not in names]
    return found


def _where(tree: Tree, source: Source) -> str:
    return source.path.relative_to(tree.root).as_posix()
