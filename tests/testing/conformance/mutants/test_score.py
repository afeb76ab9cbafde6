"""The conformance suite is to be believed: it catches every mutant by the right row, and no device that is right."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from acrn_dm.testing.conformance import RULES, Report, Rule
from acrn_dm.testing.conformance.table import rows
from tests.testing.conformance.mutants import score
from tests.testing.conformance.mutants.builds import SERVED_ELSEWHERE, subject
from tests.testing.conformance.mutants.trial import judged, trial

ROOT = Path(__file__).resolve().parents[4]
WHOLE = (("sample", ""), ("modern", ""), ("later", ""), ("pci", ""), ("pci msix", ""), ("blk", "mq=2,{image}"))


def right(how: str, options: str, rules: Sequence[Rule]) -> Report:
    """The report on the right device of that kind."""
    made = subject(how, options, None)
    try:
        return judged(made, rules)
    finally:
        if hasattr(made.outside, "close"):
            made.outside.close()


def broken() -> dict[tuple[str, str], set[str]]:
    """Kind and options of each right device -> the rows that a mutant of it breaks."""
    found: dict[tuple[str, str], set[str]] = {}
    for mutant in (*score.wrong_devices(), *score.FAULTS):
        found.setdefault((mutant.how, mutant.options), set()).update(mutant.rows)
    return found


def test_there_are_60_wrong_devices_and_30_faults_of_the_product_each_with_rows() -> None:
    devices = score.wrong_devices()
    assert len(devices) >= 60
    assert len(score.FAULTS) >= 30
    assert len({wrong.name for wrong in devices}) == len(devices)
    assert all(wrong.rows and wrong.fault for wrong in devices)


def test_every_row_that_a_mutant_breaks_is_in_the_table() -> None:
    named = {row for mutant in (*score.wrong_devices(), *score.FAULTS) for row in mutant.rows}
    assert named <= set(rows()), sorted(named - set(rows()))


def test_wrong_device_is_caught_by_its_row_and_its_right_sibling_is_not() -> None:
    wrong = next(wrong for wrong in score.wrong_devices() if wrong.name == "ClaimsWhatItNeverWrote")
    assert trial(wrong.how, wrong.options, wrong.device, wrong.rows)["caught"] in wrong.rows
    rules = [rule for rule in RULES if set(rule.ids) & set(wrong.rows)]
    assert rules
    assert judged(subject(wrong.how, wrong.options, None), rules).failed == []


@pytest.mark.stress
@pytest.mark.parametrize(("how", "options"), WHOLE)
def test_right_device_gives_no_alarm(how: str, options: str) -> None:
    """The whole suite on those that nobody else judges."""
    report = right(how, options, RULES)
    assert report.failed == [], report.text()


@pytest.mark.stress
@pytest.mark.parametrize(("how", "options"), sorted(broken().keys() - set(WHOLE) - SERVED_ELSEWHERE))
def test_right_device_keeps_the_rows_that_its_mutants_break(how: str, options: str) -> None:
    """``tests/devices/test_conformance.py`` and the packages' own tests judge these by all of them."""
    rows = broken()[how, options]
    rules = [rule for rule in RULES if set(rule.ids) & rows]
    assert rules
    report = right(how, options, rules)
    assert report.failed == [], report.text()


@pytest.mark.stress
def test_every_mutant_is_caught_by_the_right_row() -> None:
    command = [sys.executable, "-m", "tests.testing.conformance.mutants"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if not line.startswith("yes"))
    assert f"of {len(score.FAULTS) + len(score.wrong_devices())} mutants" in done.stdout.splitlines()[-1]
