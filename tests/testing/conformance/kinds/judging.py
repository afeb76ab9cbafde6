"""One row's verdict on a device, without the rest of the suite."""

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from acrn_dm.testing.conformance import Rule, Subject
from acrn_dm.testing.conformance.functions import RULES as FUNCTIONS
from acrn_dm.testing.conformance.kinds import RULES
from acrn_dm.testing.conformance.run import Judgement, judge

BY_ROW = {row: rule for rule in (*RULES, *FUNCTIONS) for row in rule.ids}


def rule_of(row: str) -> Rule:
    """The rule that decides *row*."""
    return BY_ROW[row]


def judged(build: Any, row: str, *, outside: Any = None, plugins: Sequence[object] = ()) -> Judgement:
    """What the rule of *row* saw of the device in its first setup."""
    subject = Subject(build=build, outside=outside, plugins=plugins)
    subject.look()
    return judge(subject, attrs.evolve(rule_of(row), over=()))


def rows_of(*kinds: str) -> Iterable[str]:
    """Rows that rules for these kinds decide."""
    return [row for row, rule in BY_ROW.items() if set(kinds) & set(rule.kinds)]
