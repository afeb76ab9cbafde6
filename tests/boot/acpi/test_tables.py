"""The fixed tables and where they lie."""

import struct

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot.acpi import AcpiInputs, build_acpi
from acrn_dm.boot.acpi.tables import checksum

ONE_CPU = AcpiInputs(apic_ids=(0,))


def by_signature(inputs: AcpiInputs) -> dict[str, tuple[int, bytes]]:
    return {data[:4].decode(): (gpa, data) for gpa, data in build_acpi(inputs)}


def table(signature: str, inputs: AcpiInputs = ONE_CPU) -> bytes:
    return by_signature(inputs)[signature][1]


def madt_entries(inputs: AcpiInputs) -> list[bytes]:
    rest, found = table("APIC", inputs)[44:], []
    while rest:
        found.append(rest[: rest[1]])
        rest = rest[rest[1] :]
    return found


def test_small_machine_has_the_originals_addresses() -> None:
    placed = {name: gpa - 0xF2400 for name, (gpa, _) in by_signature(ONE_CPU).items()}
    assert placed == {
        "RSD ": 0x0,
        "RSDT": 0x40,
        "XSDT": 0x80,
        "APIC": 0x100,
        "FACP": 0x200,
        "MCFG": 0x380,
        "FACS": 0x3C0,
        "DSDT": 0x1100,
    }


@pytest.mark.parametrize("cpus", [1, 21, 22, 64, 255, 1000])
def test_tables_never_overlap_and_end_below_1_mib(cpus: int) -> None:
    tables = build_acpi(AcpiInputs(apic_ids=tuple(range(cpus))))
    end = 0xF2400
    for gpa, data in tables:
        assert gpa >= end
        end = gpa + len(data)
    assert end <= 0x10_0000


def test_facs_is_64_byte_aligned_even_when_moved() -> None:
    gpa, data = by_signature(AcpiInputs(apic_ids=tuple(range(200))))["FACS"]
    assert gpa != 0xF27C0
    assert gpa % 64 == 0
    assert struct.unpack_from("<4sI", data) == (b"FACS", 64)


def test_machine_too_big_for_the_area_is_refused() -> None:
    with pytest.raises(ConfigError, match="fewer than 5000 vCPUs"):
        build_acpi(AcpiInputs(apic_ids=tuple(range(5000))))


@pytest.mark.parametrize("signature", ["RSDT", "XSDT", "APIC", "FACP", "MCFG", "DSDT"])
def test_table_sums_up_to_0_and_has_its_length(signature: str) -> None:
    data = table(signature)
    assert sum(data) % 256 == 0
    assert struct.unpack_from("<I", data, 4) == (len(data),)


def test_rsdp_has_both_checksums_and_points_at_both_roots() -> None:
    tables = by_signature(ONE_CPU)
    data = tables["RSD "][1]
    assert sum(data[:20]) % 256 == 0
    assert sum(data) % 256 == 0
    assert struct.unpack_from("<BIIQ", data, 15) == (2, tables["RSDT"][0], 36, tables["XSDT"][0])


@pytest.mark.parametrize(("signature", "code"), [("RSDT", "I"), ("XSDT", "Q")])
def test_root_table_points_at_the_tables(signature: str, code: str) -> None:
    tables = by_signature(ONE_CPU)
    pointers = [p for (p,) in struct.iter_unpack(f"<{code}", tables[signature][1][36:])]
    assert pointers == [tables[name][0] for name in ("FACP", "APIC", "MCFG")]


def test_checksum_of_nothing_is_0() -> None:
    assert checksum(b"") == 0


def test_madt_has_one_local_apic_a_vcpu_in_order() -> None:
    entries = madt_entries(AcpiInputs(apic_ids=(4, 6)))
    assert [e for e in entries if e[0] == 0] == [bytes([0, 8, 0, 4, 1, 0, 0, 0]), bytes([0, 8, 1, 6, 1, 0, 0, 0])]


def test_madt_names_big_apic_ids_by_x2apic() -> None:
    entries = madt_entries(AcpiInputs(apic_ids=(0, 300)))
    assert [struct.unpack("<BBHIII", e) for e in entries if e[0] == 9] == [(9, 16, 0, 300, 1, 1)]


def test_madt_has_ioapic_overrides_and_nmi() -> None:
    entries = madt_entries(ONE_CPU)
    assert struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC0_0000, 0) in entries
    assert struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0) in entries
    assert struct.pack("<BBBBIH", 2, 10, 0, 9, 9, 0xD) in entries
    assert struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1) in entries


def test_mcfg_ends_at_the_last_bus() -> None:
    data = table("MCFG", AcpiInputs(apic_ids=(0,), last_bus=5))
    assert len(data) == 60
    assert struct.unpack_from("<QHBB", data, 44) == (0xE000_0000, 0, 0, 5)


def test_fadt_has_the_originals_fixed_hardware() -> None:
    data = table("FACP")
    assert struct.unpack_from("<H", data, 46) == (9,)
    assert struct.unpack_from("<IBB", data, 48) == (0xB2, 0xA0, 0xA1)
    assert struct.unpack_from("<I", data, 56) == (0x400,)
    assert struct.unpack_from("<I", data, 64) == (0x404,)
    assert struct.unpack_from("<BBBBQB", data, 116) == (1, 8, 0, 1, 0xCF9, 0x0E)


def test_fadt_addresses_agree_in_both_widths() -> None:
    tables = by_signature(AcpiInputs(apic_ids=(0,), pm_timer_port=0x408))
    data = tables["FACP"][1]
    assert struct.unpack_from("<II", data, 36) == (tables["FACS"][0], tables["DSDT"][0])
    assert struct.unpack_from("<QQ", data, 132) == (0, tables["DSDT"][0])
    for legacy, extended, bits in ((56, 148, 32), (64, 172, 16), (76, 208, 32)):
        space, width, offset, _, address = struct.unpack_from("<BBBBQ", data, extended)
        assert (space, width, offset) == (1, bits, 0)
        assert struct.unpack_from("<I", data, legacy) == (address,)


def test_fadt_has_no_pm_timer_unless_there_is_one() -> None:
    data = table("FACP")
    assert struct.unpack_from("<I", data, 76) == (0,)
    assert data[91] == 0
    assert data[208:220] == bytes(12)


def test_fadt_power_button_is_a_fixed_one_and_there_is_no_sleep_button() -> None:
    flags, *_ = struct.unpack_from("<I", table("FACP"), 112)
    assert flags & 0x30 == 0x20


def test_fadt_has_no_keyboard_controller_for_drivers() -> None:
    flags, *_ = struct.unpack_from("<H", table("FACP"), 109)
    assert flags & 2 == 0


@pytest.mark.parametrize("rtc", [True, False])
def test_fadt_boot_flags_follow_the_inputs(rtc: bool) -> None:
    data = table("FACP", AcpiInputs(apic_ids=(0,), rtc=rtc))
    flags, *_ = struct.unpack_from("<H", data, 109)
    assert bool(flags & 0x20) is not rtc
    assert data[108] == (0x32 if rtc else 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"apic_ids": ()},
        {"apic_ids": (1, 1)},
        {"last_bus": 256},
        {"prt": ((32, 0, 16),)},
        {"prt": ((1, 4, 16),)},
        {"prt": ((1, 0, 16), (1, 0, 17))},
        {"uarts": (("COM1", 0x3F8, 4), ("COM1", 0x2F8, 3))},
        {"uarts": (("C", 0x3F8, 4),)},
    ],
)
def test_inconsistent_inputs_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        AcpiInputs(**({"apic_ids": (0,)} | changes))  # type: ignore[arg-type]
