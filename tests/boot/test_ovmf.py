"""Firmware images: where they lie, for whom they are made, who may use a file, and what is written back."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot import loader, ovmf
from acrn_dm.boot.files import KeptFiles
from acrn_dm.boot.ovmf import VariableStore
from acrn_dm.contract.config import Firmware
from acrn_dm.memory.guest_memory import GuestMemory
from tests.boot.samples import MIB, RecordedMemory, make_firmware, plan

KIB = 1 << 10
END = 1 << 32
DEBIAN = Path("/usr/share/ovmf/OVMF.fd")


@pytest.fixture
def image(tmp_path: Path) -> Firmware:
    (tmp_path / "image").write_bytes(make_firmware(2 * MIB))
    return Firmware(image=tmp_path / "image", writeback=True)


@pytest.fixture
def pair(tmp_path: Path) -> Firmware:
    (tmp_path / "code").write_bytes(make_firmware(1 * MIB))
    (tmp_path / "vars").write_bytes(b"v" * (128 * KIB))
    return Firmware(code=tmp_path / "code", variables=tmp_path / "vars", writeback=True)


def test_image_ends_at_4_gib_and_is_entered_at_the_reset_vector(image: Firmware) -> None:
    memory = RecordedMemory()
    registers = loader.load(memory, plan(firmware=image))
    assert memory.read(END - 2 * MIB, 2 * MIB) == make_firmware(2 * MIB)
    assert registers.code.base + registers.rip == 0xFFFF_FFF0
    assert (registers.cr0, registers.code.selector) == (0x30, 0xF000)


def test_variables_lie_below_the_code(pair: Firmware) -> None:
    memory = RecordedMemory()
    loader.load(memory, plan(firmware=pair))
    assert memory.read(END - MIB, 16) == b"\xf4" * 16
    assert memory.read(END - MIB - 128 * KIB, 128 * KIB) == b"v" * (128 * KIB)


def test_region_is_made_of_whole_huge_pages(pair: Firmware) -> None:
    region = ovmf.region(pair, KeptFiles())
    assert (region.gpa, region.size) == (END - 2 * MIB, 2 * MIB)


def test_memory_map_for_acrns_firmware_is_at_its_place(image: Firmware) -> None:
    memory = RecordedMemory()
    loader.load(memory, plan(firmware=image))
    magic, count = struct.unpack("<4sI", memory.read(0xEF000, 8))
    entries = list(struct.iter_unpack("<QQI", memory.read(0xEF008, 20 * count)))
    assert magic == b"820\0"
    assert entries == [(0, 0xA0000, 1), (MIB, 255 * MIB, 1), (0xE000_0000, 0x2000_0000, 2)]


def test_image_too_big_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(16 * MIB + 1))
    with pytest.raises(ConfigError, match="--ovmf"):
        ovmf.parts(Firmware(image=tmp_path / "big"), KeptFiles())


def test_firmware_and_elf_image_exclude_each_other(image: Firmware, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either --ovmf or -E"):
        loader.prepare(plan(firmware=image, elf=tmp_path / "elf"))


@pytest.mark.parametrize("for_qemu", [True, False])
def test_image_says_for_whom_it_is_made(tmp_path: Path, for_qemu: bool) -> None:
    (tmp_path / "code").write_bytes(make_firmware(for_qemu=for_qemu))
    (tmp_path / "vars").write_bytes(make_firmware(for_qemu=not for_qemu))
    assert ovmf.made_for_qemu(Firmware(code=tmp_path / "code", variables=tmp_path / "vars"), KeptFiles()) is for_qemu


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"hello\n", "no firmware image: 6 bytes, which is not a multiple of 4096"),
        (b"text" * 1025, "no firmware image: 4100 bytes, which is not a multiple of 4096"),
        (bytes(8192), "no firmware image: its last 16 bytes, where the processor starts, are empty"),
        (b"\xff" * 8192, "no firmware image: its last 16 bytes, where the processor starts, are empty"),
    ],
)
def test_file_that_no_processor_can_start_from_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="^" + re.escape(f"--ovmf: '{path}': {problem}") + "$"):
        ovmf.made_for_qemu(Firmware(image=path), KeptFiles())


@pytest.mark.skipif(not DEBIAN.exists(), reason="no firmware: install ovmf")
def test_debians_image_is_made_for_qemu() -> None:
    assert ovmf.made_for_qemu(Firmware(image=DEBIAN), KeptFiles())


@pytest.fixture
def memory(image: Firmware):
    memory = GuestMemory.allocate([ovmf.region(image, KeptFiles())])
    memory.write(END - 2 * MIB, b"n" * (2 * MIB))
    yield memory
    memory.close()


def test_variables_are_written_back_and_nothing_else(image: Firmware, memory: GuestMemory) -> None:
    store = VariableStore(image, KeptFiles())
    store.save(memory)
    store.close()
    assert image.image is not None
    kept = image.image.read_bytes()
    assert kept[: 128 * KIB] == b"n" * (128 * KIB)
    assert kept[128 * KIB :] == make_firmware(2 * MIB)[128 * KIB :]


def test_without_w_the_file_stays(image: Firmware, memory: GuestMemory) -> None:
    assert image.image is not None
    store = VariableStore(Firmware(image=image.image), KeptFiles())
    store.save(memory)
    store.close()
    assert image.image.read_bytes() == make_firmware(2 * MIB)


def test_file_of_its_own_is_written_back_whole(pair: Firmware, memory: GuestMemory) -> None:
    memory.write(END - MIB - 128 * KIB, b"w" * (128 * KIB))
    store = VariableStore(pair, KeptFiles())
    store.save(memory)
    store.close()
    assert pair.variables is not None
    assert pair.variables.read_bytes() == b"w" * (128 * KIB)


def test_file_that_is_not_there_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--ovmf"):
        VariableStore(Firmware(image=tmp_path / "nothing"), KeptFiles())


@pytest.mark.parametrize(("first", "second", "refused"), [(0, 0, False), (0, 1, True), (1, 0, True), (1, 1, True)])
def test_file_that_keeps_variables_is_for_one_guest(image: Firmware, first: int, second: int, refused: bool) -> None:
    one, other = (Firmware(image=image.image, writeback=bool(w)) for w in (first, second))
    files = KeptFiles()
    ovmf.region(one, files)  # as a machine does: what was read before must not lose the lock
    store = VariableStore(one, files)
    ovmf.region(one, KeptFiles())
    try:
        if refused:
            line = (
                f"--ovmf: '{image.image}': in use by this process, and one of you keeps its variables there: "
                "give each its own"
            )
            assert ovmf.check(other) == [line]
            with pytest.raises(ConfigError, match="^" + re.escape(line) + "$"):
                VariableStore(other, KeptFiles())
        else:
            assert ovmf.check(other) == []
            VariableStore(other, KeptFiles()).close()
    finally:
        store.close()
    assert ovmf.check(other) == []


def test_variables_are_read_once_the_file_is_locked(pair: Firmware) -> None:
    files = KeptFiles()
    ovmf.region(pair, files)
    assert pair.variables is not None
    pair.variables.write_bytes(b"n" * (128 * KIB))
    store = VariableStore(pair, files)
    assert ovmf.parts(pair, files)[0].file.data == b"n" * (128 * KIB)
    store.close()


def test_next_boot_finds_the_variables_that_were_saved(image: Firmware, memory: GuestMemory) -> None:
    files = KeptFiles()
    store = VariableStore(image, files)
    store.save(memory)
    store.close()
    data = ovmf.parts(image, files)[0].file.data
    assert data == b"n" * (128 * KIB) + make_firmware(2 * MIB)[128 * KIB :]


def qemu(image: Firmware, *, ro: bool) -> "subprocess.CompletedProcess[bytes]":
    """A QEMU machine that has the image as its flash device, and ends at once."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs qemu-system-x86_64 (Debian package qemu-system-x86)")
    drive = f"if=pflash,format=raw,readonly={'on' if ro else 'off'},file={image.image}"
    command = ["qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-machine", "q35", "-drive", drive]
    orders = b'{"execute": "qmp_capabilities"} {"execute": "quit"}'
    return subprocess.run([*command, "-qmp", "stdio"], input=orders, capture_output=True, timeout=60, check=False)


@pytest.mark.process
def test_qemu_may_read_the_image_that_we_read(image: Firmware) -> None:
    store = VariableStore(Firmware(image=image.image), KeptFiles())
    done = qemu(image, ro=True)
    store.close()
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.process
def test_qemu_may_not_write_variables_that_we_keep(image: Firmware) -> None:
    store = VariableStore(image, KeptFiles())
    done = qemu(image, ro=False)
    store.close()
    assert done.returncode != 0
    assert b'Failed to get "write" lock' in done.stderr
