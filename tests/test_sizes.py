"""The limits on files and functions, kept by what is around the package, too. The package itself: ``test_layers``."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import layer_rules as rules
from tests.source_tree import Tree

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("folder", ["benchmarks", "lab", "plugins", "tests", "tools"])
@pytest.mark.parametrize("rule", [rules.long_functions, rules.long_files])
def test_no_function_is_longer_than_40_lines_and_no_file_than_450(
    folder: str, rule: Callable[[Tree], list[str]]
) -> None:
    assert rule(Tree.read(ROOT / folder)) == []
