"""The tables as a guest walks them, and as dmidecode reads them."""

import shutil
import struct
import subprocess
import uuid
from pathlib import Path

import pytest

from acrn_dm.boot import loader
from acrn_dm.boot.smbios import Identity, Smbios, build_smbios
from acrn_dm.contract.config import Firmware
from acrn_dm.machine.firmware.fw_cfg_items import items
from acrn_dm.memory.guest_memory import guest_ranges
from tests.boot.samples import MIB, make_bzimage, make_firmware, plan

UUID = uuid.UUID("0f6b2f5e-8e3a-4c1b-9d53-3c7d4b8f2a10")
IDENTITY = Identity(name="vm-7", uuid=UUID, version="1.2.3")
GIB = 1 << 30


def made(*, size: int = 512 * MIB, vcpus: int = 2, firmware: bool = False) -> Smbios:
    return build_smbios(IDENTITY, vcpus=vcpus, ranges=guest_ranges(size), firmware=firmware)


def walk(table: bytes) -> list[tuple[int, int, bytes, list[str]]]:
    """(type, handle, structure without its strings, strings) of each structure."""
    found = []
    while table:
        kind, length, handle = struct.unpack_from("<BBH", table)
        end = table.index(b"\0\0", length) + 2
        strings = [text.decode() for text in table[length : end - 2].split(b"\0") if text]
        found.append((kind, handle, table[:length], strings))
        table = table[end:]
    return found


def test_entry_points_sum_up_to_0_and_lead_to_the_table() -> None:
    smbios = made()
    table = dict(smbios.placed)[0xF1040]
    assert (smbios.entry_64[:5], sum(smbios.entry_64) & 0xFF, len(smbios.entry_64)) == (b"_SM3_", 0, 24)
    assert struct.unpack_from("<IQ", smbios.entry_64, 12) == (len(table), 0xF1040)
    assert (smbios.entry_32[:4], sum(smbios.entry_32) & 0xFF, len(smbios.entry_32)) == (b"_SM_", 0, 31)
    assert (smbios.entry_32[16:21], sum(smbios.entry_32[16:]) & 0xFF) == (b"_DMI_", 0)
    assert struct.unpack_from("<HIH", smbios.entry_32, 22) == (len(table), 0xF1040, len(walk(table)))


def test_entry_points_lie_where_a_guest_scans() -> None:
    assert [gpa % 16 for gpa, data in made().placed if data[:3] == b"_SM"] == [0, 0]
    assert all(gpa >= 0xF1000 and gpa + len(data) <= 0xF2000 for gpa, data in made(size=200 * GIB, vcpus=8).placed)


def test_structures_are_those_a_machine_must_have_and_handles_are_unique() -> None:
    found = walk(made(size=5 * GIB).table)
    assert [kind for kind, *_ in found] == [0, 1, 2, 3, 4, 16, 17, 19, 19, 32, 127]
    assert len({handle for _, handle, *_ in found}) == len(found)


def test_system_has_the_names_and_the_uuid() -> None:
    _, _, data, strings = walk(made().table)[1]
    assert strings == ["ACRN", "acrn_dm", "1.2.3", "vm-7"]
    assert data[8:24] == UUID.bytes_le


def test_firmware_tells_of_itself() -> None:
    assert 0 not in [kind for kind, *_ in walk(made(firmware=True).table)]


def dmidecode(smbios: Smbios, folder: Path, *arguments: str) -> str:
    program = shutil.which("dmidecode", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("dmidecode is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout + done.stderr


def in_memory(smbios: Smbios, folder: Path) -> tuple[str, ...]:
    """The tables where the guest has them, one entry point of the two."""
    with (folder / "memory").open("wb") as file:
        file.truncate(MIB)
        for gpa, data in smbios.placed:
            file.seek(gpa)
            file.write(data)
    return ("-d", "memory")


def in_dump(smbios: Smbios, folder: Path) -> tuple[str, ...]:
    """As dmidecode --dump-bin writes them: the table at 32, the entry point with that address."""
    entry = bytearray(smbios.entry_64)
    entry[16:24] = struct.pack("<Q", 32)
    entry[5] = 0
    entry[5] = -sum(entry) & 0xFF
    (folder / "dump").write_bytes(bytes(entry).ljust(32, b"\0") + smbios.table)
    return ("--from-dump", "dump")


@pytest.mark.parametrize("way", [in_memory, in_dump])
@pytest.mark.parametrize("size", [128 * MIB, 5 * GIB, 64 * GIB])
def test_dmidecode_reads_every_structure_without_a_complaint(tmp_path: Path, way, size: int) -> None:
    smbios = made(size=size)
    text = dmidecode(smbios, tmp_path, *way(smbios, tmp_path))
    bad = ("<BAD", "<OUT OF SPEC>", "broken", "truncated", "Wrong", "TRUNCATED", "Invalid", "Unexpected")
    assert [line for line in text.splitlines() if any(word in line for word in bad)] == []
    for line in (
        "Product Name: acrn_dm",
        "Serial Number: vm-7",
        f"UUID: {UUID}",
        "Asset Tag: vm-7",
        "Core Count: 2",
        "Number Of Devices: 1",
        "System is a virtual machine",
    ):
        assert line in text
    assert f"Size: {size // MIB} MB" in text or f"Size: {size // GIB} GB" in text


def test_dmidecode_finds_the_32_bit_entry_point_too(tmp_path: Path) -> None:
    smbios = made()
    arguments = in_memory(smbios, tmp_path)
    with (tmp_path / "memory").open("r+b") as file:
        file.seek(0xF1000)
        file.write(bytes(24))
    assert "SMBIOS 2.8 present." in dmidecode(smbios, tmp_path, *arguments)


def test_guest_without_firmware_has_them_in_memory(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(make_bzimage())
    pieces = loader.prepare(plan(kernel=tmp_path / "kernel", identity=IDENTITY)).pieces
    assert [(p.gpa, bytes(p.data)[:4]) for p in pieces if p.name == "SMBIOS table"][:2] == [
        (0xF1000, b"_SM3"),
        (0xF1020, b"_SM_"),
    ]


def test_firmware_made_for_qemu_is_given_them(tmp_path: Path) -> None:
    (tmp_path / "firmware").write_bytes(make_firmware())
    booted = plan(firmware=Firmware(image=tmp_path / "firmware"), identity=IDENTITY)
    directory = items(lambda: booted)
    names = {}
    for number in range((len(directory[0x19]) - 4) // 64):  # type: ignore[arg-type]
        size, select, _, name = struct.unpack_from(">IHH56s", directory[0x19], 4 + 64 * number)  # type: ignore[arg-type]
        names[name.rstrip(b"\0").decode()] = (size, directory[select])
    smbios = booted.smbios()
    assert smbios is not None
    assert names["etc/smbios/smbios-anchor"] == (31, smbios.entry_32)
    assert names["etc/smbios/smbios-tables"] == (len(smbios.table), smbios.table)
