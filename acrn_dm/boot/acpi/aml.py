"""ACPI machine language: each function encodes one term and returns its bytes.

Source: ACPI 6.3, chapter 20. Terms nest by concatenation, so a body is just the terms in order:
``method("_OSC", 4, store(arg(0), local(0)), return_(local(0)))``. A bad argument is a bug of the caller: ValueError.
"""

import re
import uuid

_SEGMENT = re.compile(r"[A-Z_][A-Z0-9_]{0,3}")

ZERO = b"\x00"
ONE = b"\x01"
_DISCARD = b"\x00"  # NullName as the target of an operator: the result is only the term's value


def _segment(segment: str) -> bytes:
    if _SEGMENT.fullmatch(segment) is None:
        raise ValueError(f"not an ACPI name segment: {segment!r}")
    return segment.ljust(4, "_").encode("ascii")


def name_string(path: str) -> bytes:
    r"""Encode *path*, such as ``_CRS``, ``\_SB.PCI0`` or ``^COM1`` (20.2.2)."""
    tail = path.lstrip("\\^")
    prefix = path[: len(path) - len(tail)]
    if "\\" in prefix[1:] or ("\\" in prefix and len(prefix) > 1):
        raise ValueError(f"bad prefix in ACPI name {path!r}")
    segments = [_segment(s) for s in tail.split(".")] if tail else []
    if not segments and not prefix:
        raise ValueError("empty ACPI name")
    if len(segments) > 255:
        raise ValueError(f"ACPI name of {len(segments)} segments")
    count = {0: b"\x00", 1: b"", 2: b"\x2e"}.get(len(segments), b"\x2f" + bytes([len(segments) & 0xFF]))
    return prefix.encode("ascii") + count + b"".join(segments)


def package_length(content: int) -> bytes:
    """Encode PkgLength for *content* bytes that follow it: its own 1 to 4 bytes count too (20.2.4)."""
    if content + 1 <= 0x3F:
        return bytes([content + 1])
    for extra in (1, 2, 3):
        total = content + 1 + extra
        if total < 1 << (4 + 8 * extra):
            return bytes([extra << 6 | total & 0xF]) + (total >> 4).to_bytes(extra, "little")
    raise ValueError(f"AML package of {content} bytes; the format ends at 256 MiB")


def _sized(opcode: bytes, content: bytes) -> bytes:
    return opcode + package_length(len(content)) + content


def integer(value: int) -> bytes:
    """Encode a constant of up to 64 bits in its shortest form (20.2.3)."""
    if not 0 <= value < 1 << 64:
        raise ValueError(f"not a 64-bit AML integer: {value}")
    if value <= 1:
        return bytes([value])
    for opcode, width in ((b"\x0a", 1), (b"\x0b", 2), (b"\x0c", 4)):
        if value < 1 << (8 * width):
            return opcode + value.to_bytes(width, "little")
    return b"\x0e" + value.to_bytes(8, "little")


def string(text: str) -> bytes:
    """Encode a string of printable ASCII."""
    data = text.encode("ascii")
    if b"\0" in data:
        raise ValueError("NUL inside an AML string")
    return b"\x0d" + data + b"\0"


def eisa_id(identifier: str) -> bytes:
    """Encode a seven-character id such as ``PNP0A08`` as the integer it stands for (19.6.38)."""
    if re.fullmatch(r"[A-Z]{3}[0-9A-F]{4}", identifier) is None:
        raise ValueError(f"not an EISA id: {identifier!r}")
    vendor = 0
    for letter in identifier[:3]:
        vendor = vendor << 5 | (ord(letter) - 0x40)
    compressed = vendor << 16 | int(identifier[3:], 16)
    return b"\x0c" + compressed.to_bytes(4, "big")  # always a DWord: that is what readers decode


def package(*elements: bytes) -> bytes:
    """Encode Package () {elements}."""
    if len(elements) > 255:
        raise ValueError(f"AML package of {len(elements)} elements; at most 255")
    return _sized(b"\x12", bytes([len(elements)]) + b"".join(elements))


def buffer(data: bytes) -> bytes:
    """Encode Buffer (len) {data}."""
    return _sized(b"\x11", integer(len(data)) + data)


def uuid_buffer(text: str) -> bytes:
    """Encode ToUUID (text): the first three fields are little-endian."""
    return buffer(uuid.UUID(text).bytes_le)


def name(path: str, value: bytes) -> bytes:
    """Encode Name (path, value)."""
    return b"\x08" + name_string(path) + value


def scope(path: str, *body: bytes) -> bytes:
    """Encode Scope (path) {body}."""
    return _sized(b"\x10", name_string(path) + b"".join(body))


def device(path: str, *body: bytes) -> bytes:
    """Encode Device (path) {body}."""
    return _sized(b"\x5b\x82", name_string(path) + b"".join(body))


def method(path: str, args: int, *body: bytes, serialized: bool = False) -> bytes:
    """Encode Method (path, args) {body}; one that creates named objects has to be *serialized*."""
    if not 0 <= args <= 7:
        raise ValueError(f"AML method with {args} arguments; at most 7")
    return _sized(b"\x14", name_string(path) + bytes([args | serialized << 3]) + b"".join(body))


def arg(number: int) -> bytes:
    """Encode Arg0 ... Arg6."""
    if not 0 <= number <= 6:
        raise ValueError(f"no Arg{number} in AML")
    return bytes([0x68 + number])


def local(number: int) -> bytes:
    """Encode Local0 ... Local7."""
    if not 0 <= number <= 7:
        raise ValueError(f"no Local{number} in AML")
    return bytes([0x60 + number])


def store(value: bytes, target: bytes) -> bytes:
    """Encode target = value."""
    return b"\x70" + value + target


def and_(left: bytes, right: bytes, target: bytes = _DISCARD) -> bytes:
    """Encode target = left & right; without a target only the value."""
    return b"\x7b" + left + right + target


def or_(left: bytes, right: bytes, target: bytes = _DISCARD) -> bytes:
    """Encode target = left | right; without a target only the value."""
    return b"\x7d" + left + right + target


def equal(left: bytes, right: bytes) -> bytes:
    """Encode left == right (LEqual)."""
    return b"\x93" + left + right


def not_equal(left: bytes, right: bytes) -> bytes:
    """Encode left != right (LNot LEqual)."""
    return b"\x92\x93" + left + right


def if_(predicate: bytes, *body: bytes) -> bytes:
    """Encode If (predicate) {body}."""
    return _sized(b"\xa0", predicate + b"".join(body))


def else_(*body: bytes) -> bytes:
    """Encode Else {body}; directly behind an ``if_``."""
    return _sized(b"\xa1", b"".join(body))


def return_(value: bytes) -> bytes:
    """Encode Return (value)."""
    return b"\xa4" + value


def create_dword_field(source: bytes, offset: int, field: str) -> bytes:
    """Encode CreateDWordField (source, offset, field): *field* names 4 bytes of a buffer."""
    return b"\x8a" + source + integer(offset) + name_string(field)
