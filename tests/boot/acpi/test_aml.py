"""The AML encoder, by the byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.boot.acpi import aml


def decode_length(data: bytes) -> tuple[int, int]:
    """PkgLength as a reader decodes it: (value, bytes it takes), ACPI 6.3 section 20.2.4."""
    extra = data[0] >> 6
    if extra == 0:
        return data[0] & 0x3F, 1
    assert data[0] & 0x30 == 0
    return data[0] & 0xF | int.from_bytes(data[1 : 1 + extra], "little") << 4, 1 + extra


def decode_integer(data: bytes) -> int:
    widths = {0x0A: 1, 0x0B: 2, 0x0C: 4, 0x0E: 8}
    if data[0] in (0, 1):
        assert len(data) == 1
        return data[0]
    assert len(data) == 1 + widths[data[0]]
    return int.from_bytes(data[1:], "little")


@given(st.integers(0, (1 << 28) - 5))
def test_package_length_counts_itself(content: int) -> None:
    encoded = aml.package_length(content)
    assert decode_length(encoded) == (content + len(encoded), len(encoded))


@pytest.mark.parametrize(
    ("content", "size"),
    [(62, 1), (63, 2), (4093, 2), (4094, 3), ((1 << 20) - 4, 3), ((1 << 20) - 3, 4), ((1 << 28) - 5, 4)],
)
def test_package_length_is_the_shortest_at_its_edges(content: int, size: int) -> None:
    assert len(aml.package_length(content)) == size


def test_package_length_past_its_format_is_refused() -> None:
    with pytest.raises(ValueError, match="256 MiB"):
        aml.package_length((1 << 28) - 4)


@given(st.integers(0, (1 << 64) - 1))
def test_integer_reads_back_and_is_shortest(value: int) -> None:
    encoded = aml.integer(value)
    assert decode_integer(encoded) == value
    assert len(encoded) == next(
        n for n, end in ((1, 2), (2, 1 << 8), (3, 1 << 16), (5, 1 << 32), (9, 1 << 64)) if value < end
    )


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_integer_outside_64_bits_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        aml.integer(value)


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("_CRS", b"_CRS"),
        ("RTC", b"RTC_"),
        ("\\", b"\\\x00"),
        ("\\_SB", b"\\_SB_"),
        ("^^X", b"^^X___"),
        ("\\_SB.PCI0", b"\\\x2e_SB_PCI0"),
        ("A.B.C", b"\x2f\x03A___B___C___"),
    ],
)
def test_name_string_is_encoded_by_its_segments(path: str, encoded: bytes) -> None:
    assert aml.name_string(path) == encoded


@pytest.mark.parametrize("path", ["", "TOOLONG", "lower", "1ABC", "A..B", "^\\A", "\\\\A"])
def test_bad_name_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="ACPI name"):
        aml.name_string(path)


def test_eisa_id_is_a_byte_swapped_dword() -> None:
    assert aml.eisa_id("PNP0A03") == b"\x0c\x41\xd0\x0a\x03"
    with pytest.raises(ValueError, match="EISA"):
        aml.eisa_id("ACPI0007")


def test_uuid_has_little_endian_fields() -> None:
    data = aml.uuid_buffer("33DB4D5B-1FF7-401C-9657-7441C03DD766")
    assert data[-16:].hex() == "5b4ddb33f71f1c4096577441c03dd766"


def test_string_is_ascii_with_nul() -> None:
    assert aml.string("COM1") == b"\x0dCOM1\0"
    with pytest.raises(ValueError, match="NUL"):
        aml.string("a\0")
    with pytest.raises(UnicodeEncodeError):
        aml.string("é")


def test_package_has_length_count_and_elements() -> None:
    assert aml.package(aml.ONE, aml.ZERO) == b"\x12\x04\x02\x01\x00"
    with pytest.raises(ValueError, match="256 elements"):
        aml.package(*[aml.ZERO] * 256)


def test_buffer_has_its_size_as_a_term() -> None:
    assert aml.buffer(b"abc") == b"\x11\x06\x0a\x03abc"


def test_method_flags_hold_arguments_and_serialization() -> None:
    assert aml.method("_OSC", 4, serialized=True) == b"\x14\x06_OSC\x0c"
    with pytest.raises(ValueError, match="8 arguments"):
        aml.method("X", 8)


@pytest.mark.parametrize("call", [lambda: aml.arg(7), lambda: aml.local(8), lambda: aml.arg(-1)])
def test_argument_and_local_numbers_are_bounded(call) -> None:
    with pytest.raises(ValueError, match="in AML"):
        call()
