"""The trial of one mutant: the rules of the rows that it breaks, then, where those find nothing, all others."""

from collections.abc import Sequence
from typing import Any

from acrn_dm.testing.conformance import RULES, Outcome, Report, Rule, Subject, conform
from acrn_dm.testing.conformance.setup import FORMATS, PACKED, SPLIT
from tests.testing.conformance.mutants.builds import subject


def trial(how: str, options: str, device: type | None, rows: tuple[str, ...]) -> dict[str, Any]:
    """What the suite says: ``caught``, the right id that it was caught by; or ``wrong``, the ids that fail instead."""
    accused = subject(how, options, device)
    accused.formats = _formats(rows)
    likely = [rule for rule in RULES if set(rule.ids) & set(rows)]
    rest = [rule for rule in RULES if rule not in likely]
    wrong: dict[str, str] = {}
    try:
        for rules in (likely, rest):
            wrong |= {v.row.id: v.text for v in judged(accused, rules).having(Outcome.FAILED)}
            if right := [row for row in rows if row in wrong]:
                return {"caught": right[0], "text": wrong[right[0]]}
        return {"wrong": wrong, "rules": [rule.name for rule in likely]}
    finally:
        if hasattr(accused.outside, "close"):
            accused.outside.close()


def _formats(rows: Sequence[str]) -> Sequence[str]:
    """The ring formats to see it with: that of its rows, or, where they are of none, all."""
    named = {part for row in rows for part in row.split(".")}
    return [name for name in (SPLIT, PACKED) if name in named] or FORMATS


def judged(accused: Subject, rules: Sequence[Rule] = RULES) -> Report:
    """The report on it by some of the rules."""
    return conform(
        accused.build, plugins=accused.plugins, outside=accused.outside, rules=rules, formats=accused.formats
    )
