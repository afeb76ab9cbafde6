"""Resource descriptors, by the byte."""

import struct

import pytest

from acrn_dm.boot.acpi import resource


def test_io_is_fixed_16_bit_decoded_ports() -> None:
    assert resource.io(0x3F8, 8) == bytes.fromhex("47 01 f803 f803 01 08")


def test_irq_no_flags_is_a_mask() -> None:
    assert resource.irq_no_flags(4) == b"\x22\x10\x00"


def test_memory32_fixed_is_writable() -> None:
    assert resource.memory32_fixed(0xE000_0000, 0x10_0000) == struct.pack("<BHBII", 0x86, 9, 1, 0xE000_0000, 0x10_0000)


def test_bus_numbers_have_their_count() -> None:
    tag, length, kind, *rest = struct.unpack("<BHB2x5H", resource.word_bus_number(0, 3))
    assert (tag, length, kind, rest) == (0x88, 13, 2, [0, 0, 3, 0, 4])


def test_64_bit_window_has_first_last_and_length() -> None:
    tag, length, kind, *rest = struct.unpack("<BHB2x5Q", resource.qword_memory(0x40_0000_0000, 0x7F_FFFF_FFFF))
    assert (tag, length, kind, rest) == (0x8A, 43, 0, [0, 0x40_0000_0000, 0x7F_FFFF_FFFF, 0, 0x40_0000_0000])


def test_template_ends_with_the_end_tag() -> None:
    assert resource.template(resource.irq_no_flags(4)) == b"\x11\x08\x0a\x05\x22\x10\x00\x79\x00"


@pytest.mark.parametrize(
    "call",
    [
        lambda: resource.io(0x10000, 1),
        lambda: resource.io(0, 256),
        lambda: resource.irq_no_flags(16),
        lambda: resource.word_io(5, 4),
        lambda: resource.word_io(0, 0x10000),
        lambda: resource.dword_memory(0, 1 << 32),
    ],
)
def test_value_outside_its_field_is_refused(call) -> None:
    with pytest.raises(ValueError, match=r"ports|interrupt|range"):
        call()
