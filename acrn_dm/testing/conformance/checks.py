"""The suite as callables: a check for each rule, and one assertion for all of them."""

from collections.abc import Callable, Sequence

import attrs

from acrn_dm.testing.conformance.report import Outcome
from acrn_dm.testing.conformance.rule import Rule
from acrn_dm.testing.conformance.run import RULES, conform, judge, report_on
from acrn_dm.testing.conformance.subject import Build, Subject

Check = Callable[[Build], None]


@attrs.frozen
class RuleCheck:
    """A rule as a callable, ``check(build)``: raises AssertionError where the device breaks it, returns where it holds
    or says nothing about the device.
    """

    rule: Rule

    @property
    def __name__(self) -> str:
        return self.rule.name

    def __call__(self, build: Build) -> None:
        subject = Subject(build=build)
        subject.look()
        if not self.rule.is_for(subject.kind):
            return
        report = report_on(subject, [judge(subject, self.rule)])
        assert not report.failed, "\n".join(str(verdict) for verdict in report.having(Outcome.FAILED))


CHECKS: tuple[RuleCheck, ...] = tuple(RuleCheck(rule) for rule in RULES)


def assert_device_conforms(build: Build, *, plugins: Sequence[object] = ()) -> None:
    """Run the whole suite on what *build* puts into ``SLOT`` of a machine with *plugins*. Raises AssertionError with
    each row that the device breaks, its requirement and what was seen; and what building or starting the device raises.
    """
    report = conform(build, plugins=plugins)
    assert not report.failed, "\n".join(str(verdict) for verdict in report.having(Outcome.FAILED))
