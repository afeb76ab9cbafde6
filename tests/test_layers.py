"""Imports point downwards: the layers of ARCHITECTURE.md, kept. ``test_layer_rules`` shows what each rule sees."""

from pathlib import Path

import pytest

import acrn_dm
from acrn_dm import _fastring, testing
from tests import layer_rules as rules
from tests.source_tree import Tree

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "ARCHITECTURE.md").read_text()
TREE = Tree.read(ROOT / "acrn_dm")
LAYERS = rules.Layers(DOCUMENT)
BY_NAME = [row[0].strip("`") for row in rules.table(DOCUMENT, "Layers", 1)]
PUBLIC = {
    "acrn_dm": [*acrn_dm.__all__, "_fastring"],
    "acrn_dm.testing": testing.__all__,
    "acrn_dm._fastring": [name for name in dir(_fastring) if not name.startswith("_")],
}
BESIDE = ("benchmarks", "lab", "plugins", "tests", "tools")


def test_every_module_is_in_a_layer() -> None:
    assert rules.unplaced(TREE, LAYERS) == []


def test_every_entry_of_the_table_has_a_module_and_stands_once() -> None:
    assert rules.stale(TREE, LAYERS) == []


def test_imports_point_downwards_and_units_of_a_row_stand_apart() -> None:
    assert rules.upward(TREE, LAYERS) == []


def test_modules_do_not_import_one_another_in_a_circle() -> None:
    assert rules.cycles(TREE) == []


def test_the_package_imports_itself_the_standard_library_and_its_dependencies_only() -> None:
    assert rules.foreign(TREE) == []


def test_what_imports_by_name_is_listed_with_its_reason() -> None:
    assert rules.by_name(TREE, BY_NAME) == []
    assert all(row[-1] for row in rules.table(DOCUMENT, "Layers", 1))


def test_no_function_is_longer_than_40_lines() -> None:
    assert rules.long_functions(TREE) == []


@pytest.mark.parametrize("folder", ["acrn_dm", *BESIDE])
def test_no_file_is_longer_than_450_lines(folder: str) -> None:
    assert rules.long_files(Tree.read(ROOT / folder)) == []


def test_no_folder_has_more_than_14_files_and_the_top_at_most_4_modules() -> None:
    assert rules.full_folders(TREE) == []


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_plugins_use_public_names_only(path: Path) -> None:
    assert rules.private_names(path, PUBLIC) == []


def test_core_code_never_touches_pluggy_hooks_directly() -> None:
    offenders = [s.module for s in TREE.sources if ".hook." in s.text and s.path.name != "plugins.py"]
    assert offenders == []
