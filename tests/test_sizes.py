"""The limit on functions, kept by what is around the package, too. The package, and all files: ``test_layers``."""

from pathlib import Path

import pytest

from tests import layer_rules as rules
from tests.source_tree import Tree

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("folder", ["benchmarks", "lab", "plugins", "tests", "tools"])
def test_no_function_is_longer_than_40_lines(folder: str) -> None:
    assert rules.long_functions(Tree.read(ROOT / folder)) == []
