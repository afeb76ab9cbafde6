"""Planting: a fault reaches the process that imports it and no other, and one that fits nothing is an error."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing.conformance.mutants.plant import Edit, StaleError, plant
from tests.testing.conformance.mutants.score import FAULTS

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = """
from tests.testing.conformance.mutants.plant import Edit, plant
edit = Edit(module="acrn_dm.virtio.defs", old="NO_VECTOR = 0xFFFF", new="NO_VECTOR = 0x1234")
planted = plant(edit)
from acrn_dm.virtio.core import NO_VECTOR
planted.assert_used()
print(NO_VECTOR)
"""


def test_every_fault_is_in_its_file_exactly_once_and_makes_another_program_of_it() -> None:
    for fault in FAULTS:
        source = ROOT.joinpath(*fault.edit.module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
        compile(fault.edit.apply(source), fault.name, "exec")


def test_names_of_faults_differ() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("source", ["", "a = 1\na = 1\n"])
def test_edit_that_is_not_there_once_is_stale(source: str) -> None:
    with pytest.raises(StaleError, match="stands there"):
        Edit(module="m", old="a = 1\n", new="a = 2\n").apply(source)


def test_module_that_was_imported_before_can_not_be_changed() -> None:
    with pytest.raises(StaleError, match="imported already: acrn_dm"):
        plant(Edit(module="acrn_dm", old="", new=""))


@pytest.mark.stress
def test_planted_fault_is_what_others_import() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(0x1234)
