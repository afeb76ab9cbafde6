"""Imports point downwards: the layers of ARCHITECTURE.md, kept."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "acrn_dm"

# Bottom first. A module may import its own layer and the ones below.
LAYERS = (
    ("base",),
    ("_fastring", "ring", "memory"),
    ("contract",),
    ("pci",),
    ("virtio",),
    ("backends",),
    ("boot", "devices", "hypervisors"),
    ("management",),
    ("machine",),
    ("cli", "export", "testing", "__main__", "__init__"),
)


def layer(module: str) -> int:
    """Layer of ``acrn_dm.<module>``; the longest matching prefix decides."""
    ranks = {name: i for i, names in enumerate(LAYERS) for name in names}
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in ranks:
            return ranks[".".join(parts[:n])]
    raise AssertionError(f"acrn_dm.{module} is in no layer: give it one here and in ARCHITECTURE.md")


def imports(path: Path) -> set[str]:
    """Modules of this package that *path* imports at run time, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("acrn_dm."):
            found.add(node.module.removeprefix("acrn_dm."))
        elif isinstance(node, ast.ImportFrom) and node.module == "acrn_dm":
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("acrn_dm.") for a in node.names if a.name.startswith("acrn_dm.")}
    return found


FILES = sorted(p for p in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_its_own_layer_and_below(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    own = layer(module)
    above = sorted(m for m in imports(path) if layer(m) > own)
    assert above == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_function_is_longer_than_60_lines_and_no_file_than_450(path: Path) -> None:
    text = path.read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f"{f.name}: {f.end_lineno - f.lineno + 1}" for f in functions if (f.end_lineno or 0) - f.lineno >= 60]
    assert long == []
    assert text.count("\n") <= 450


def test_core_code_never_touches_pluggy_hooks_directly() -> None:
    offenders = [p.name for p in FILES if ".hook." in p.read_text() and p.name != "plugins.py"]
    assert offenders == []
