"""acrn_dm.devices.terminal.escape: Ctrl-a x, wherever the input is cut."""

import pytest

from acrn_dm.devices.terminal.escape import EscapeFilter


@pytest.mark.parametrize(
    ("chunks", "passed", "quits"),
    [
        ([b"abc"], b"abc", 0),
        ([b"\x01x"], b"\x01", 1),
        ([b"\x01", b"x"], b"\x01", 1),
        ([b"\x01a"], b"\x01a", 0),
        ([b"\x01\x01x"], b"\x01\x01", 1),
        ([b"\x01ax"], b"\x01ax", 0),
        ([b"x"], b"x", 0),
    ],
)
def test_escape_key_is_taken_out_and_calls(chunks: list[bytes], passed: bytes, quits: int) -> None:
    seen: list[int] = []
    escape = EscapeFilter(lambda: seen.append(1))
    assert b"".join(escape(chunk) for chunk in chunks) == passed
    assert len(seen) == quits
