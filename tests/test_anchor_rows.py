"""Faults that other virtual machine monitors had (rows 1 to 102, from rings to protocols): each has a test here.

A test carries the row in its name, ``test_row_47_...``, so that ``pytest -k row_47`` runs what keeps that fault away.
"""

import re
from functools import cache

import pytest

from tests.named_tests import ROOT, all_tests

ROWS = range(1, 103)

# Rows that concern nothing that exists here, with the reason.
NOT_HERE: dict[int, str] = {
    74: "unlimited nesting of qcow2 backing files: images are raw, none names another (row 73 keeps it so)",
    97: "a fault inside Linux's vhost-net, in the kernel's own buffer; whoever hands it rings can't tell or prevent it",
    98: "the client of a vfio-user server: only the server is here",
    101: "dirty bitmaps of a vfio-user client: the server here keeps none",
    102: "NVMe queues of a vfio-user device: there is no NVMe here",
}


@cache
def named_rows() -> dict[int, list[str]]:
    """The tests that name each row."""
    found: dict[int, list[str]] = {}
    for test in all_tests():
        for row in re.findall(r"_row_(\d+)(?=_)", test.name):
            found.setdefault(int(row), []).append(f"{test.file}::{test.name}")
    return found


@pytest.mark.parametrize("row", ROWS)
def test_row_has_a_test_or_a_reason(row: int) -> None:
    tests = named_rows().get(row, [])
    assert bool(tests) != (row in NOT_HERE), f"row {row}: tests {tests}, reason {NOT_HERE.get(row)}"


def test_no_test_names_a_row_that_there_is_not() -> None:
    assert set(named_rows()) <= set(ROWS)


def test_reasons_about_vfio_user_hold() -> None:
    """As soon as the package has a client, dirty bitmaps or NVMe, their rows need tests."""
    modules = [path for path in (ROOT / "acrn_dm").rglob("*.py*") if path.suffix in (".py", ".pyx")]
    speaks = [path.name for path in modules if re.search(r"DIRTY_PAGES|nvme|VfioUserDevice", path.read_text(), re.I)]
    assert speaks == [], f"{speaks}: rows 98, 101, 102 may apply"
