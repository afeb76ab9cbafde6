"""The trial of one mutant: the rules of the rows that it breaks, then, where those find nothing, all others."""

import logging
from typing import Any

from acrn_dm.testing.conformance import Rule, Subject
from acrn_dm.testing.conformance.run import EXCEPTION, RULES, Judgement, applicable, judge
from tests.testing.conformance.mutants.builds import subject


def trial(how: str, options: str, device: type | None, rows: tuple[str, ...]) -> dict[str, Any]:
    """What the suite says: ``caught``, the right id that it was caught by; or ``wrong``, the ids that fail instead."""
    logging.getLogger("acrn_dm").propagate = False  # the suite hears it, nobody else
    accused = subject(how, options, device)
    try:
        accused.look()
        rules = applicable(accused, RULES)
        likely = [rule for rule in rules if set(rule.ids) & set(rows)]
        rest = [rule for rule in rules if rule not in likely]
        wrong: dict[str, str] = {}
        for rule in (*likely, *rest):
            failed = _failed(accused, rule)
            for row in rows:
                if row in failed:
                    return {"caught": row, "by": rule.name, "text": failed[row], "likely": rule in likely}
            wrong |= failed
        return {"wrong": wrong, "rules": [rule.name for rule in likely]}
    finally:
        if hasattr(accused.outside, "close"):
            accused.outside.close()


def _failed(accused: Subject, rule: Rule) -> dict[str, str]:
    seen: Judgement = judge(accused, rule)
    failed = {row: seen.failures[0] for row in rule.ids if seen.failures}
    if seen.exceptions:
        failed[EXCEPTION] = seen.exceptions[0]
    return failed
