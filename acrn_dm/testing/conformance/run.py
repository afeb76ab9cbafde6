"""The run: every rule that concerns a device, on a fresh machine for each of its setups, and the report on it."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from acrn_dm.testing.conformance import functions, kinds, rules
from acrn_dm.testing.conformance.bench import Bench, bench
from acrn_dm.testing.conformance.not_tested import why_not
from acrn_dm.testing.conformance.report import Outcome, Report, Verdict
from acrn_dm.testing.conformance.rings import rules as ring_rules
from acrn_dm.testing.conformance.rule import NotApplicable, Rule
from acrn_dm.testing.conformance.setup import FORMATS, Setup, choose
from acrn_dm.testing.conformance.subject import Build, Subject
from acrn_dm.testing.conformance.table import Row, rows

EXCEPTION = "dm.exception"
RULES: tuple[Rule, ...] = (*rules.RULES, *ring_rules.RULES, *kinds.RULES, *functions.RULES)


@attrs.define(eq=False)
class Judgement:
    """One rule's findings: a line for each setup in which the device broke it, exceptions out of the device, and why
    there was nothing to judge elsewhere.
    """

    rule: Rule
    failures: list[str] = attrs.field(factory=list)
    exceptions: list[str] = attrs.field(factory=list)
    reasons: list[str] = attrs.field(factory=list)
    judged: int = 0

    @property
    def broken(self) -> bool:
        """Whether the device fails, by the rule or by what it raised meanwhile."""
        return bool(self.failures or self.exceptions)

    def outcome(self, row: Row, excuses: Mapping[str, str]) -> Verdict:
        """The verdict on one of the rule's rows."""
        if row.id in excuses and not row.strict and self.failures:
            return Verdict(row=row, outcome=Outcome.NOT_APPLICABLE, text=f"excused: {excuses[row.id]}")
        if self.failures:
            return Verdict(row=row, outcome=Outcome.FAILED, text="; ".join(self.failures))
        if not self.judged:
            return Verdict(row=row, outcome=Outcome.NOT_APPLICABLE, text=self.reasons[0])
        return Verdict(row=row, outcome=Outcome.PASSED)


def judge(subject: Subject, rule: Rule) -> Judgement:
    """Run *rule* in each of its setups. *subject* has looked at the device before."""
    judgement = Judgement(rule)
    setups = choose(subject.axes, rule.over, rule.pinned)
    if not setups:
        judgement.reasons.append(f"there is no {' '.join(rule.pinned.values())} to use")
    for setup in setups:
        _judge_in(subject, rule, setup, judgement)
    return judgement


def _judge_in(subject: Subject, rule: Rule, setup: Setup, judgement: Judgement) -> None:
    found: list[str] = []
    try:
        with bench(subject, setup) as made:
            found = made.watch.found  # filled until the bench is closed
            _require(made, rule)
            rule.check(made)
            judgement.judged += 1
    except NotApplicable as e:
        judgement.reasons.append(str(e))
    except AssertionError as e:
        judgement.failures.append(f"{setup}: {e or 'assertion failed'}")
    except Exception as e:  # a device's, or a driver's that met what no device shows
        judgement.failures.append(f"{setup}: {type(e).__name__}: {e}")
    judgement.exceptions += [f"{setup}: {text} (during {rule.name})" for text in found]


def _require(made: Bench, rule: Rule) -> None:
    missing = [name for name in rule.needs if not made.offers(name)]
    if missing:
        raise NotApplicable(f"{', '.join(missing)} is not offered")


def applicable(subject: Subject, chosen: Sequence[Rule] = RULES) -> list[Rule]:
    """The rules that concern the device's kind."""
    return [rule for rule in chosen if rule.is_for(subject.kind)]


def concerned(kind: str) -> list[Row]:
    """The rows that concern devices of *kind*: those of all virtio devices, or of none, and its own."""
    general = "" if kind != "pci" else "pci"
    return [row for row in rows().values() if row.kind in (general, kind)]


def report_on(subject: Subject, judgements: Sequence[Judgement], seconds: float = 0.0) -> Report:
    """Put together what rules saw of one device; rows that no rule decides stand in it with the reason."""
    verdicts = {row.id: why_not(row) for row in concerned(subject.kind)}
    for judgement in judgements:
        for row in judgement.rule.rows:
            verdicts[row.id] = judgement.outcome(row, subject.reasons)
    exceptions = list(dict.fromkeys(text for judgement in judgements for text in judgement.exceptions))
    if exceptions:
        text = "; ".join(exceptions)
        verdicts[EXCEPTION] = Verdict(row=rows()[EXCEPTION], outcome=Outcome.FAILED, text=text)
    return Report(name=subject.name, kind=subject.kind, verdicts=list(verdicts.values()), seconds=seconds)


def conform(
    build: Build,
    *,
    name: str = "device",
    plugins: Sequence[object] = (),
    outside: Any = None,
    reasons: Mapping[str, str] | None = None,
    rules: Sequence[Rule] = RULES,
    formats: Sequence[str] = FORMATS,
) -> Report:
    """Run the suite on what *build* puts into ``SLOT`` of a machine and return the report, under *name*.

    *plugins* are registered in each machine, for a device that needs its package's hooks. *outside* shows the rules of
    its kind what the world behind the device sees. *reasons* excuse rows that are no MUST: id -> why; a device class
    may list them itself, as ``conformance_reasons``. *formats* are the ring formats to see it with, of those that it
    offers. Raises what building or starting the device raises.
    """
    begin = time.monotonic()
    subject = Subject(build=build, name=name, plugins=plugins, outside=outside)
    subject.reasons, subject.formats = dict(reasons or {}), formats
    subject.look()
    judgements = [judge(subject, rule) for rule in applicable(subject, rules)]
    return report_on(subject, judgements, time.monotonic() - begin)
