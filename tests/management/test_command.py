"""JSON objects on a stream, from clients that mean well and from others."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.management.command import MAX_ARGUMENTS, MAX_OBJECT, Command, MalformedError, Splitter, ack, parse

TWO = b'{"command":"destroy"}\n\t{"command": "blkrescan", "arguments": "3,/a}{\\"b"}\0'


@given(st.lists(st.integers(0, len(TWO))))
def test_objects_are_found_however_the_stream_is_cut(cuts: list[int]) -> None:
    splitter = Splitter()
    edges = [0, *sorted(cuts), len(TWO)]
    found = [text for a, b in itertools.pairwise(edges) for text in splitter.feed(TWO[a:b])]
    assert [parse(text) for text in found] == [Command("destroy"), Command("blkrescan", '3,/a}{"b')]


@given(st.binary(max_size=200))
def test_any_bytes_are_split_or_refused(data: bytes) -> None:
    try:
        found = Splitter().feed(data)
    except MalformedError:
        return
    for text in found:
        try:
            parse(text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    "data", [b"destroy", b'"destroy"', b"7", b"}", b"[" * 9, b'{"a":' * 9, b'{"command":"' + b"x" * MAX_OBJECT]
)
def test_what_is_no_object_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Splitter().feed(data)


@pytest.mark.parametrize(
    "text",
    [
        *(b"{}", b"[]", b"{]", b'{"command":1}', b'{"command":"x","arguments":3}', b'{"command":"\xff"}'),
        b'{"command":"blkrescan","arguments":"' + b"x" * (MAX_ARGUMENTS + 1) + b'"}',
    ],
)
def test_object_that_is_no_command_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_arguments_of_an_earlier_command_are_not_kept() -> None:
    assert parse(b'{"command":"blkrescan"}').arguments == ""


def test_acknowledgement_is_one_line() -> None:
    assert (ack(True), ack(False)) == (b'{"ack":0}\n', b'{"ack":-1}\n')
