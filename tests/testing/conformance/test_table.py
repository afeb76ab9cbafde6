"""The table of requirements: what is in it, and that it is there wherever the package is."""

import pytest

from acrn_dm.testing.conformance import RULES
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.conformance.table import rows


def test_rows_keep_their_levels_and_belong_to_a_kind() -> None:
    assert len(rows()) >= 768
    assert {row.level for row in rows().values()} == {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY", "DESC"}
    assert rows()["d.con.vq"].kind == "console"
    assert rows()["split.used_notify.flag0"].kind == ""


def test_rule_for_a_row_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no such row.*split\.nosuch"):
        rule("split.nosuch")
    with pytest.raises(ValueError, match="none given"):
        rule()


def test_no_row_is_decided_by_two_rules() -> None:
    ids = [row for rule in RULES for row in rule.ids]
    assert sorted(ids) == sorted(set(ids))
