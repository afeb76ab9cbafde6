"""A disk that firmware boots from: a GPT with one EFI system partition, and in it a unified kernel image.

A unified image is an EFI program, systemd's stub, with kernel, command line and initramfs as sections; firmware starts
it from the place where it looks on any disk, EFI/BOOT/BOOTX64.EFI.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from acrn_dm.testing.guest.errors import HarnessUnavailable

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
# Behind the stub's own sections, each with room to grow: addresses are relative to where firmware loads the image.
SECTIONS = {".osrel": 0x2_0000, ".cmdline": 0x3_0000, ".linux": 0x200_0000, ".initrd": 0x600_0000}
MIB = 1 << 20
START = MIB  # of the partition
PACKAGES = {"objcopy": "binutils", "mkfs.vfat": "dosfstools", "mmd": "mtools", "mcopy": "mtools", "sgdisk": "gdisk"}


def unified_image(target: Path, *, kernel: Path, initramfs: Path, command_line: str) -> None:
    """Make the EFI program. Raises HarnessUnavailable."""
    if not STUB.exists():
        raise HarnessUnavailable(f"{STUB} is missing (package systemd-boot-efi)")
    release, line = target.with_suffix(".osrel"), target.with_suffix(".cmdline")
    release.write_text("ID=debian\nPRETTY_NAME=guest\nVERSION_ID=1\n")
    line.write_text(command_line)
    files = dict(zip(SECTIONS, (release, line, kernel, initramfs), strict=True))
    options: list[str] = []
    for section, address in SECTIONS.items():
        options += ["--add-section", f"{section}={files[section]}", "--change-section-vma", f"{section}={address:#x}"]
    _tool("objcopy", *options, str(STUB), str(target))


def boot_disk(target: Path, program: Path) -> None:
    """Make the disk that *program* boots from. Raises HarnessUnavailable."""
    partition = target.with_suffix(".esp")
    size = -(-program.stat().st_size // MIB) + 4
    partition.unlink(missing_ok=True)
    _tool("mkfs.vfat", "-C", "-F", "16", str(partition), str(size * 1024))
    _tool("mmd", "-i", str(partition), "::/EFI", "::/EFI/BOOT")
    _tool("mcopy", "-i", str(partition), str(program), "::/EFI/BOOT/BOOTX64.EFI")
    with target.open("wb") as disk:
        disk.truncate(START + size * MIB + MIB)  # the last MiB has the second partition table
        disk.seek(START)
        disk.write(partition.read_bytes())
    first = START // 512
    _tool("sgdisk", "-n", f"1:{first}:{first + size * MIB // 512 - 1}", "-t", "1:ef00", str(target))


def _tool(name: str, *arguments: str) -> None:
    program = shutil.which(name, path="/usr/bin:/sbin:/usr/sbin:/bin")
    if program is None:
        raise HarnessUnavailable(f"{name} is not installed (package {PACKAGES[name]})")
    command: Sequence[str] = [program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stdout}{done.stderr}")
