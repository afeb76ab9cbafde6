"""Scripts of faults: lines that are read, printed and refused."""

import errno

import pytest

from acrn_dm.testing import SimMachine
from acrn_dm.testing.faults.rule import Fault, parse

LINES = [
    "fail preadv nth=3 errno=EIO path='*/my disk.img'",
    "fail vm.irqfd errno=ENOSPC",
    "short pwritev bytes=512",
    "delay fdatasync times=2 seconds=2.5",
    "reorder pwritev",
    "lose interrupt nth=2 of='3.0 vector 1'",
]


@pytest.mark.parametrize("line", LINES)
def test_fault_prints_as_the_line_that_it_was_read_from(line: str) -> None:
    assert str(parse(line)) == line


def test_errno_is_a_name_or_a_number() -> None:
    assert [parse(f"fail open errno={e}").errno for e in ("ENOENT", "EIO")] == [errno.ENOENT, errno.EIO]
    assert Fault(kind="fail", call="open", errno=13).errno == 13


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("fail", "expected what happens and to which call"),
        ("break open", "'kind' must be in"),
        ("fail open errno=EWHAT", "errno 'EWHAT' is none"),
        ("fail open nth=0", "nth 0: at least 1"),
        ("fail open often=1", "unknown: often"),
        ("fail open nth", "dictionary update sequence"),
        ("delay open seconds=-1", "seconds -1.0: at least 0"),
    ],
)
def test_wrong_line_is_told_with_the_reason(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse(line)
    assert repr(line) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("fail no_such_call", "no function of os"),
        ("lose pread", "what can happen to 'pread' is delay, fail, reorder, short"),
        ("short interrupt bytes=1", "what can happen to 'interrupt' is delay, lose, reorder"),
        ("reorder vm.irqfd", "what can happen to 'vm.irqfd' is delay, fail"),
        ("fail vm.irqfd path=x", "only calls of the host have a path"),
    ],
)
def test_fault_that_can_not_be_is_refused_when_it_is_armed(line: str, why: str) -> None:
    with SimMachine() as machine, pytest.raises(ValueError, match=why):
        machine.faults.script(line)


def test_script_has_empty_lines_and_comments() -> None:
    with SimMachine() as machine:
        armed = machine.faults.script("\n# a bad day\nfail pread  # once\n\nshort pwrite bytes=3\n")
        assert [str(fault) for fault in armed] == ["fail pread errno=EIO", "short pwrite bytes=3"]
