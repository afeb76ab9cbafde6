"""acrn_dm.base.log_text: nothing in a record's text is obeyed by a terminal or taken for another record."""

import logging

import pytest

from acrn_dm.base.log_text import LineFormatter, escaped


def record(text: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("x", logging.WARNING, "", 0, text, args, exc_info)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with spaces and \u00fcml\u00e4uts", "plain, with spaces and \u00fcml\u00e4uts"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("\u2028\u202e\u2066", "\\u2028\\u202e\\u2066"),
        ("\udc80 \U000e0001", "\\udc80 \\U000e0001"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_message_is_one_line_whatever_its_arguments_are() -> None:
    text = LineFormatter("acrn-dm: %(message)s").format(record("port %s", "a\nacrn-dm: ERROR: \x1b[2Jforged"))
    assert text == "acrn-dm: port a\\nacrn-dm: ERROR: \\x1b[2Jforged"


def test_traceback_has_its_lines_and_none_of_them_looks_like_a_record() -> None:
    try:
        raise ValueError("x\nacrn-dm: ERROR: forged\x1b[2J")
    except ValueError as e:
        error = e
    lines = LineFormatter("acrn-dm: %(message)s").format(record("failed", error=error)).splitlines()
    assert lines[:2] == ["acrn-dm: failed", "  Traceback (most recent call last):"]
    assert lines[-1] == "  acrn-dm: ERROR: forged\\x1b[2J"
    assert all(line.startswith("  ") for line in lines[1:])


def test_traceback_that_another_formatter_left_in_the_record_is_not_used() -> None:
    made = record("failed", error=ValueError("real"))
    made.exc_text = "acrn-dm: ERROR: forged"
    assert "forged" not in LineFormatter("%(message)s").format(made)
    assert made.exc_text == "acrn-dm: ERROR: forged"
