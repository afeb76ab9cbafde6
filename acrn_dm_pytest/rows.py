"""The rows of the conformance suite as tests: one device's, each judged when its test runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from acrn_dm.testing.conformance.not_tested import why_not
from acrn_dm.testing.conformance.report import Outcome, Verdict
from acrn_dm.testing.conformance.rule import Rule
from acrn_dm.testing.conformance.run import EXCEPTION, Judgement, applicable, concerned, judge
from acrn_dm.testing.conformance.subject import Subject
from acrn_dm.testing.conformance.table import rows


class Broken(Exception):
    """The failure of a row: its requirement and what was seen, without a traceback, which would be the suite's."""


class Rows:
    """The rows that concern *subject*. A rule that decides several runs once."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._rules: dict[str, Rule] = {row: rule for rule in applicable(subject) for row in rule.ids}
        self._judged: dict[str, Judgement] = {}

    @property
    def ids(self) -> Sequence[str]:
        """All of them, in the order of the table."""
        return [row.id for row in concerned(self.subject.kind)]

    @property
    def ruled(self) -> Sequence[str]:
        """Those that a rule decides."""
        return [row for row in self.ids if row in self._rules]

    def verdict(self, row: str) -> tuple[Verdict, list[str]]:
        """What *row* comes to, and what the device raised meanwhile."""
        if row not in self._rules:
            return why_not(rows()[row]), []
        rule = self._rules[row]
        if rule.name not in self._judged:
            self._judged[rule.name] = judge(self.subject, rule)
        judgement = self._judged[rule.name]
        return judgement.outcome(rows()[row], self.subject.reasons), judgement.exceptions

    def run(self, row: str) -> tuple[Verdict, list[str]]:
        """Judge *row* as a test. Raises Broken, or skips with the reason."""
        verdict, exceptions = self.verdict(row)
        conclude(verdict, exceptions)
        return verdict, exceptions


def conclude(verdict: Verdict, exceptions: Sequence[str]) -> None:
    """Pass. Raises Broken for a row that failed, or while which the device raised something; skips the others."""
    if verdict.outcome is Outcome.FAILED:
        raise Broken(str(verdict))
    if exceptions:
        raise Broken(str(Verdict(row=rows()[EXCEPTION], outcome=Outcome.FAILED, text="; ".join(exceptions))))
    if verdict.outcome is not Outcome.PASSED:
        pytest.skip(f"{verdict.outcome.value}: {verdict.text}")


def as_property(name: str, kind: str, verdict: Verdict, exceptions: Sequence[str]) -> Mapping[str, Any]:
    """A verdict as plain values, which another process can be sent."""
    return {
        "device": name,
        "kind": kind,
        "row": verdict.row.id,
        "outcome": verdict.outcome.value,
        "text": verdict.text,
        "exceptions": list(exceptions),
    }
