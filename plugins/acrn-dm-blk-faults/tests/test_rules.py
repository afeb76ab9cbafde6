"""Rules as they are written, and which requests they take."""

import errno
import math
import random

import pytest
from acrn_dm_blk_faults.rules import Armed, parse


def test_rule_says_what_happens_to_what() -> None:
    rule = parse("error=ENOSPC:on=write+zeroes:sectors=8-15:chance=0.5:nth=3:after=2:times=4:delay=1.5")
    assert (rule.error, rule.on, rule.first, rule.last) == (errno.ENOSPC, {"write", "zeroes"}, 8, 15)
    assert (rule.chance, rule.nth, rule.after, rule.times, rule.delay) == (0.5, 3, 2, 4, 0.0015)


def test_delay_may_have_no_end() -> None:
    assert parse("delay=forever").delay == math.inf


def test_torn_write_fails_unless_the_rule_is_silent() -> None:
    assert (parse("torn=512").error, parse("torn=512").on) == (errno.EIO, {"write"})
    assert parse("torn=0:error=none").error == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is none of error="),
        ("error", "'error' is none of"),
        ("colour=red", "'colour=red' is none of"),
        ("on=read", "nothing happens"),
        ("error=EIO:error=EIO", "error is given twice"),
        ("error=EWHATEVER", "expected the name of an errno"),
        ("error=errorcode", "expected the name of an errno"),
        ("delay=-1", "expected a number from 0"),
        ("delay=nan", "expected a number from 0"),
        ("torn=100", "whole sectors"),
        ("torn=512:on=read", "only a write can be torn"),
        ("error=EIO:on=read+spin", "expected some of read"),
        ("error=EIO:sectors=9-8", "expected FIRST-LAST"),
        ("error=EIO:sectors=x", "expected a whole number"),
        ("error=EIO:chance=2", "from 0 to 1"),
        ("error=EIO:nth=0", "whole number from 1"),
        ("error=EIO:times=99999999999999999999", "whole number from 1"),
    ],
)
def test_wrong_rule_is_told_with_its_word(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def taken(text: str, requests: list[tuple[str, int, int]], seed: int = 0) -> list[bool]:
    armed = Armed(parse(text), random.Random(seed))
    return [armed.takes(operation, 512 * sector, 512 * sectors) for operation, sector, sectors in requests]


def test_range_takes_what_touches_it() -> None:
    requests = [("read", 7, 1), ("read", 7, 2), ("read", 15, 4), ("read", 16, 1), ("flush", 0, 0)]
    assert taken("error=EIO:sectors=8-15", requests) == [False, True, True, False, True]


def test_other_operations_are_left_alone() -> None:
    assert taken("error=EIO:on=write", [("read", 0, 1), ("write", 0, 1)]) == [False, True]


def test_nth_counts_what_matches_behind_the_first_ones() -> None:
    assert taken("error=EIO:nth=2:after=1:times=2", [("read", n, 1) for n in range(8)]) == [
        *(False, False, True, False, True, False, False, False)
    ]


def test_chance_is_the_seed_s() -> None:
    requests = [("read", n, 1) for n in range(200)]
    once, again, other = (taken("error=EIO:chance=0.25", requests, seed) for seed in (1, 1, 2))
    assert once == again
    assert once != other
    assert 25 < sum(once) < 75


def test_torn_length_is_the_rule_s_or_chance_s() -> None:
    assert Armed(parse("torn=1024"), random.Random(0)).kept(4096) == 1024
    assert Armed(parse("torn=8192"), random.Random(0)).kept(4096) == 4096
    armed = Armed(parse("torn=random"), random.Random(0))
    kept = {armed.kept(4096) for _ in range(100)}
    assert kept == {512 * n for n in range(8)}
