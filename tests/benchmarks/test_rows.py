"""A benchmark's row: who is measured when, and what of the rounds it tells."""

from collections.abc import Iterator

import pytest

from benchmarks.rows import Alternated, Row, Skipped, alone, alternate, spread, table


def test_both_take_turns_and_who_goes_first_changes() -> None:
    order: list[str] = []
    figures: Iterator[float] = iter((1.0, 2.0, 4.0, 3.0, 5.0, 6.0))

    def measured(name: str) -> float:
        order.append(name)
        return next(figures)

    found = alternate(lambda: measured("ours"), lambda: measured("peer"), 3)
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert (found.ours, found.peer) == ((1.0, 3.0, 5.0), (2.0, 4.0, 6.0))


def test_no_round_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="0 rounds"):
        alternate(lambda: 1.0, lambda: 1.0, 0)


def test_a_row_has_the_medians_and_the_ratio_of_the_rounds() -> None:
    """The machine slowed down by ten in the second round, which both had; the ratio of medians would be 8 / 10."""
    found = Alternated(ours=(1.0, 30.0, 8.0), peer=(2.0, 10.0, 16.0))
    row = found.row("name", "ns", "peer", "1.2")
    assert row == Row("name", "ns", 8.0, 10.0, "peer", "1.2", 0.5, spread((0.5, 3.0, 0.5)))


def test_spread_is_that_of_the_middle_half() -> None:
    assert spread((100.0, 8.0, 10.0, 12.0, 0.0)) == pytest.approx(0.4)
    assert spread((7.0,)) == 0.0


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, True),
        ({"at_most": 0.5}, True),
        ({"at_most": 0.4}, False),
        ({"at_least": 0.5}, True),
        ({"at_least": 0.6}, False),
    ],
)
def test_limits_are_those_of_the_ratio(limits: dict[str, float], kept: bool) -> None:
    row = Alternated(ours=(5.0,), peer=(10.0,)).row("name", "ns", "peer", "1", **limits)
    assert row.kept is kept


def test_without_a_peer_the_limit_is_that_of_the_figure() -> None:
    assert alone("name", "s", (1.0, 2.0, 9.0), at_most=2.0).kept
    assert not alone("name", "s", (1.0, 3.0, 9.0), at_most=2.0).kept


def test_the_table_marks_a_limit_that_is_missed_and_says_why_a_row_is_not_there() -> None:
    slow = Alternated(ours=(3.0,), peer=(1.0,)).row("slow", "ns", "the bare loop", "12.2", at_most=1.25)
    _, line, skipped = table([slow, Skipped("other", "no such program")])
    assert "the bare loop 12.2  [<= 1.25: MISSED]" in line
    assert skipped.endswith("skipped: no such program")
