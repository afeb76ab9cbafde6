"""The register tables: layout against the specification, odd widths."""

import pytest

from acrn_dm.testing.register_access import COMMON, LEGACY
from acrn_dm.virtio.pci import legacy, modern
from acrn_dm.virtio.pci.registers import Register, RegisterMap


def test_common_configuration_has_the_offsets_of_the_specification() -> None:
    ours = {r.name: (r.offset, r.width) for r in modern.COMMON.registers}
    for name, (offset, size) in COMMON.items():
        if size == 8:
            assert (ours[f"{name}_lo"], ours[f"{name}_hi"]) == ((offset, 4), (offset + 4, 4))
        else:
            assert ours[name] == (offset, size)
    assert modern.COMMON.size == 0x3C


def test_legacy_header_has_the_offsets_of_the_specification() -> None:
    assert {r.name: (r.offset, r.width) for r in legacy.HEADER.registers} == LEGACY


@pytest.mark.parametrize("registers", [modern.COMMON.registers, legacy.HEADER.registers])
def test_registers_do_not_overlap(registers: tuple[Register[object], ...]) -> None:
    taken: list[int] = []
    for register in registers:
        taken += range(register.offset, register.offset + register.width)
    assert len(taken) == len(set(taken))


def test_access_words_say_what_the_functions_allow() -> None:
    by_name = {r.name: r.access for r in (*modern.COMMON.registers, *legacy.HEADER.registers)}
    assert by_name["num_queues"] == "RO"
    assert by_name["queue_notify"] == "WO"
    assert by_name["device_status"] == "RW"


class Cell:
    def __init__(self) -> None:
        self.low, self.high = 0x1111_1111, 0x2222_2222


def _cell_map() -> RegisterMap[Cell]:
    return RegisterMap(
        [
            Register("low", 0, 4, lambda c: c.low, lambda c, v: setattr(c, "low", v)),
            Register("high", 4, 4, lambda c: c.high, lambda c, v: setattr(c, "high", v)),
        ]
    )


def test_eight_bytes_are_two_halves() -> None:
    cell, cells = Cell(), _cell_map()
    assert cells.read(cell, 0, 8) == 0x2222_2222_1111_1111
    cells.write(cell, 0, 8, 0xAAAA_AAAA_BBBB_BBBB)
    assert (cell.low, cell.high) == (0xBBBB_BBBB, 0xAAAA_AAAA)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (2, 4), (1, 2), (8, 4)])
def test_other_widths_and_offsets_read_all_ones_and_write_nothing(offset: int, size: int) -> None:
    cell, cells = Cell(), _cell_map()
    assert cells.read(cell, offset, size) == (1 << 8 * size) - 1
    cells.write(cell, offset, size, 0)
    assert (cell.low, cell.high) == (0x1111_1111, 0x2222_2222)
