"""What runs without tests stays without them, and the lab's own parts keep their order."""

import ast
from pathlib import Path

import pytest

from lab.paths import ROOT
from tests.source_tree import statements

LAB = ROOT / "lab"
# Bottom first. A module of the lab may import its own part and the ones before it.
PARTS = ("paths", "images", "guest", "demo", "hsm", "qemu")
# The same of what boots guests, which is part of the package.
HARNESS = ROOT / "acrn_dm" / "testing" / "guest"
HARNESS_PARTS = (
    *("places", "errors", "process", "progress", "command_line", "consoles", "qemu", "kernels", "images", "outer"),
    *("inner", "needs", "host", "served", "guest", "guests", "fixture"),
)
HARNESS_FILES = sorted(set(HARNESS.rglob("*.py")) - {HARNESS / "__init__.py"})
# What `make demo`, `make bench` and `make docs` run, and the package itself.
PRODUCT = ("lab", "benchmarks", "acrn_dm", "tools/docs")
LAB_FILES = sorted(LAB.rglob("*.py"))


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imported(file: Path) -> set[str]:
    """Modules that it imports, and names that it takes from packages."""
    found = set()
    for node in statements(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def words(file: Path) -> set[str]:
    """Its string constants, such as modules that it has Python run."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def is_a_test(word: str) -> bool:
    """Whether it names a test of ours, as a path or as a module. Those of a new package, from a template, are not."""
    place = word.replace(".", "/") if word.startswith("tests.") else word
    return place.startswith("tests/") and any((ROOT / f"{place}{suffix}").exists() for suffix in ("", ".py"))


@pytest.mark.parametrize("part", PRODUCT)
def test_what_runs_without_tests_neither_imports_nor_starts_one(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    imports = {f"{name(file)}: {module}" for file in files for module in imported(file)}
    assert [line for line in imports if line.partition(": ")[2].partition(".")[0] == "tests"] == []
    run = {f"{name(file)}: {word}" for file in files for word in words(file)}
    assert [line for line in run if is_a_test(line.partition(": ")[2])] == []


def test_makefile_runs_tests_by_pytest_alone() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    assert [line for line in lines if "-m tests" in line or "tests/" in line] == []


@pytest.mark.parametrize("file", LAB_FILES, ids=name)
def test_lab_module_imports_only_its_own_part_and_those_before_it(file: Path) -> None:
    own = file.relative_to(LAB).with_suffix("").parts[0]
    before = set(PARTS[: PARTS.index(own) + 1]) if own != "__init__" else set()
    others = {module.split(".")[1] for module in imported(file) if module.startswith("lab.")}
    assert others & set(PARTS) <= before


@pytest.mark.parametrize("file", HARNESS_FILES, ids=name)
def test_what_boots_guests_imports_only_its_own_part_and_those_before_it(file: Path) -> None:
    own = file.relative_to(HARNESS).with_suffix("").parts[0]
    before = set(HARNESS_PARTS[: HARNESS_PARTS.index(own) + 1])
    others = {module.split(".")[3] for module in imported(file) if module.startswith("acrn_dm.testing.guest.")}
    assert others <= before


@pytest.mark.parametrize("file", LAB_FILES, ids=name)
def test_only_paths_knows_where_the_checkout_is(file: Path) -> None:
    found = [word for word in (".parents", ".parent.parent", "getcwd", "Path.cwd") if word in file.read_text()]
    assert found == ([".parents"] if file == LAB / "paths.py" else [])


def test_folders_of_the_lab_have_at_most_14_files_and_files_450_lines() -> None:
    folders = {file.parent for file in LAB.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert [name(folder) for folder in folders if sum(file.is_file() for file in folder.iterdir()) > 14] == []
    sources = [file for file in LAB.rglob("*") if file.suffix in {".py", ".sh", ".c", ".h"}]
    assert [name(file) for file in sources if file.read_text().count("\n") > 450] == []


@pytest.mark.parametrize("file", LAB_FILES, ids=name)
def test_function_of_the_lab_has_at_most_40_lines(file: Path) -> None:
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in nodes if (node.end_lineno or 0) - node.lineno >= 40] == []
