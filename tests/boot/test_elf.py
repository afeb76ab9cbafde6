"""The ELF parser against good, odd and hostile files."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot import elf
from tests.boot.samples import (
    MIB,
    PT_LOAD,
    PT_NOTE,
    image_file,
    make_elf,
    make_multiboot,
    make_vmlinux,
    note,
    prepare_elf,
    setup,
)


@pytest.mark.parametrize("bits", [32, 64])
def test_segment_has_its_addresses_contents_and_size(bits: int) -> None:
    data = make_elf(bits, [(PT_LOAD, 0x20_0000, b"code", 0x1000)], entry=0x20_0000, virtual_offset=0x1000_0000)
    parsed = elf.parse(image_file(data))
    (segment,) = parsed.segments
    assert (parsed.bits, parsed.entry) == (bits, 0x20_0000)
    assert (segment.paddr, segment.vaddr) == (0x20_0000, 0x1020_0000)
    assert (bytes(segment.data), segment.memory_size) == (b"code", 0x1000)


def test_notes_are_read_with_their_padding() -> None:
    notes = note(b"Xen\0", 6, b"linux\0") + note(b"GNU\0", 3, b"12345")
    data = make_elf(64, [(PT_LOAD, MIB, b"x", 1), (PT_NOTE, 0, notes, len(notes))])
    found = [(n.owner, n.type, n.description) for n in elf.parse(image_file(data)).notes]
    assert found == [(b"Xen", 6, b"linux\0"), (b"GNU", 3, b"12345")]


def test_empty_segments_are_left_out() -> None:
    data = make_elf(64, [(PT_LOAD, MIB, b"x", 1), (PT_LOAD, 0, b"", 0)])
    assert len(elf.parse(image_file(data)).segments) == 1


LONG_NOTE = note(b"Xen\0", 18, b"1234")[:4] + b"\xff\xff\xff\x7f" + note(b"Xen\0", 18, b"1234")[8:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x7fELF", "ends inside its ELF header"),
        (b"MZ" + bytes(100), "not an ELF image"),
        (b"\x7fELF\x03" + bytes(100), "neither 32-bit nor 64-bit"),
        (b"\x7fELF\x02\x02" + bytes(100), "little-endian"),
        (make_elf(64, [(PT_LOAD, MIB, b"x", 1)], kind=3), "ELF type 3"),
        (make_elf(64, [(PT_LOAD, MIB, b"x", 1)], machine=183), "machine 183"),
        (make_elf(64, []), "0 ELF program headers"),
        (make_elf(64, [(PT_LOAD, MIB, b"x", 1)] * 65), "65 ELF program headers"),
        (make_elf(64, [(PT_NOTE, 0, b"", 0)]), "nothing to load"),
        (make_elf(64, [(PT_LOAD, MIB, b"xyz", 2)]), "larger in the file than in memory"),
        (make_elf(64, [(PT_LOAD, MIB, b"xyz", 3)])[:-1], "the file ends before its segment"),
        (make_elf(64, [(PT_LOAD, MIB, b"x", 1), (PT_NOTE, 0, LONG_NOTE, 0)]), "passes the end"),
    ],
)
def test_bad_file_is_refused_with_its_reason(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        elf.parse(image_file(data))


@settings(deadline=None)
@given(
    data=st.sampled_from([make_vmlinux(), make_multiboot()]),
    length=st.integers(0, 1024),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
)
def test_damaged_file_never_does_worse_than_config_error(
    data: bytes, length: int, flips: list[tuple[int, int]]
) -> None:
    damaged = bytearray(data[:length])
    for offset, value in flips:
        if offset < len(damaged):
            damaged[offset] = value
    guest = setup(128 * MIB, ramdisk=b"r" * 100)
    try:
        image = prepare_elf(bytes(damaged), guest)
        image.check(guest.ranges)
    except ConfigError:
        return
    assert all(p.gpa >= 0 and p.end <= 128 * MIB for p in image.pieces)
