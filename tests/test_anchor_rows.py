"""Faults that other virtual machine monitors had, transport to reset (rows 40 to 68): each has a test here.

A test carries the row in its name, ``test_row_47_...``, so that ``pytest -k row_47`` runs what keeps that fault away.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = range(40, 69)

# Rows that concern nothing that exists here, with the reason.
NOT_HERE: dict[int, str] = {}


def named_rows() -> dict[int, list[str]]:
    """The tests that name each row."""
    found: dict[int, list[str]] = {}
    for path in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for row in re.findall(r"_row_(\d+)(?=_)", node.name):
                    found.setdefault(int(row), []).append(f"{path.name}::{node.name}")
    return found


@pytest.mark.parametrize("row", ROWS)
def test_row_has_a_test_or_a_reason(row: int) -> None:
    tests = named_rows().get(row, [])
    assert bool(tests) != (row in NOT_HERE), f"row {row}: tests {tests}, reason {NOT_HERE.get(row)}"
