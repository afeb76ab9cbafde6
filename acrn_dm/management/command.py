"""The command monitor's language: JSON objects, one behind the other on a stream, cut anywhere.

``{"command": "destroy"}``, ``{"command": "blkrescan", "arguments": "SLOT,PATH"}``. The original reads one object a
message and forgets the others; here each is answered.
"""

import json
from collections.abc import Mapping

import attrs

from acrn_dm.base.records import define, frozen

MAX_OBJECT = 4096  # bytes: the original's buffer
MAX_DEPTH = 8
MAX_ARGUMENTS = 319  # characters, as in the original
BETWEEN = b" \t\r\n\0"
OPENING, CLOSING = b"{[", b"}]"


class MalformedError(ValueError):
    """The error of bytes that are no command; where the next one begins can't be known."""


@frozen
class Command:
    """One request."""

    name: str
    arguments: str = ""


@define(eq=False)
class Splitter:
    """The cutter of a stream into its objects; looks at each byte once."""

    _buffer: bytearray = attrs.field(factory=bytearray)
    _depth: int = 0
    _in_string: bool = False
    _escaped: bool = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the objects that *data* completes. Raises MalformedError, after which the stream is of no use."""
        found: list[bytes] = []
        for byte in data:
            if not self._buffer and byte in BETWEEN:
                continue
            if not self._buffer and byte not in OPENING:
                raise MalformedError("expected an object")
            self._buffer.append(byte)
            if len(self._buffer) > MAX_OBJECT:
                raise MalformedError(f"an object has at most {MAX_OBJECT} bytes")
            if self._ends(byte):
                found.append(bytes(self._buffer))
                self._buffer.clear()
        return found

    def _ends(self, byte: int) -> bool:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif byte == ord("\\"):
                self._escaped = True
            elif byte == ord('"'):
                self._in_string = False
            return False
        if byte == ord('"'):
            self._in_string = True
        elif byte in OPENING:
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise MalformedError("nested too deeply")
        elif byte in CLOSING:
            self._depth -= 1
            return self._depth == 0
        return False


def parse(text: bytes) -> Command:
    """Read one object. Raises ValueError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"no JSON: {e}") from None
    if not isinstance(value, dict) or not isinstance(value.get("command"), str):
        raise ValueError('expected {"command": NAME}')
    arguments = value.get("arguments", "")
    if not isinstance(arguments, str) or len(arguments) > MAX_ARGUMENTS:
        raise ValueError(f"arguments are a text of at most {MAX_ARGUMENTS} characters")
    return Command(value["command"], arguments)


def ack(ok: bool) -> bytes:
    """The answer to one command."""
    return encode({"ack": 0 if ok else -1})


def encode(value: Mapping[str, int | str]) -> bytes:
    """One line of JSON."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
