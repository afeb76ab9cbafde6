"""The boot loader: chooses how the user's kernel is loaded, adds the tables, writes guest memory. What knows a kind of
kernel, or firmware, is imported for those who have one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.boot.acpi.build import RSDP_GPA, build_acpi
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.boot.bios import area as bios_area
from acrn_dm.boot.bios.mp_table import build_mp
from acrn_dm.boot.files import ImageFile, KeptFiles
from acrn_dm.boot.image import ELF_MAGIC, BootImage, GuestSetup, Piece, low_memory_end
from acrn_dm.boot.smbios import Identity, Smbios, build_smbios
from acrn_dm.contract.config import Firmware
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange

if TYPE_CHECKING:
    from acrn_dm.boot.elf import ElfImage


@frozen(kw_only=True)
class BootPlan:
    """The files that are to be booted, and in which machine.

    ``firmware`` (``--ovmf``) runs first, if there is any; a kernel is then the firmware's to start.
    ``kernel`` (``-k``) a bzImage, or an ELF vmlinux with a PVH note; ``elf`` (``-E``) a multiboot image, or a 64-bit
    vmlinux with a PVH note; exactly one of the two. ``memory_ranges`` the guest's RAM, of which one starts at 0.
    ``disks`` slot and function on bus 0 of each disk, in the order in which firmware is to look for a boot loader.
    ``identity`` what SMBIOS tables say; None: there are none.
    ``files`` the contents of all these files, once they have been read: the machine's.
    """

    kernel: Path | None = None
    elf: Path | None = None
    firmware: Firmware | None = None
    ramdisk: Path | None = None
    bootargs: str = ""
    memory_ranges: Sequence[MemoryRange]
    acpi: AcpiInputs
    identity: Identity | None = None
    disks: Sequence[tuple[int, int]] = ()
    files: KeptFiles = attrs.field(factory=KeptFiles, repr=False)

    def smbios(self) -> Smbios | None:
        """The tables of this machine."""
        if self.identity is None:
            return None
        return build_smbios(
            self.identity,
            vcpus=len(self.acpi.apic_ids),
            ranges=self.memory_ranges,
            firmware=self.firmware is not None,
        )


def load(memory: GuestMemory, plan: BootPlan) -> BootRegisters:
    """Read the files, write the guest's memory and return the boot processor's entry state.

    Works again after each reset of the guest, with the same files: no path of the host is opened then. Raises
    ConfigError, and then has written nothing.
    """
    image = prepare(plan)
    image.write(memory)
    return image.registers


def check(plan: BootPlan) -> list[str]:
    """Return what keeps *plan* from booting, one line each; opens no guest memory."""
    problems = []
    for path, option in ((plan.kernel, "-k"), (plan.elf, "-E"), (plan.ramdisk, "-r")):
        try:
            if path is not None:
                plan.files.read(path, option, low_memory_end(plan.memory_ranges))
        except ConfigError as e:
            problems.append(str(e))
    if problems:
        return problems
    try:
        prepare(plan)
    except ConfigError as e:
        problems.append(str(e))
    return problems


def prepare(plan: BootPlan) -> BootImage:
    """Read and lay out everything that goes into guest memory. Raises ConfigError."""
    room = low_memory_end(plan.memory_ranges)
    file = _boot_file(plan, room)
    ramdisk = None if plan.ramdisk is None else plan.files.read(plan.ramdisk, "-r", room)
    setup = GuestSetup(ranges=plan.memory_ranges, ramdisk=ramdisk, bootargs=plan.bootargs, rsdp=RSDP_GPA)
    tables = [Piece(name=f"ACPI table {data[:4].decode()}", gpa=gpa, data=data) for gpa, data in build_acpi(plan.acpi)]
    smbios = plan.smbios()
    tables += [Piece(name="SMBIOS table", gpa=gpa, data=data) for gpa, data in (smbios.placed if smbios else ())]
    if plan.firmware is not None:
        from acrn_dm.boot import ovmf  # noqa: PLC0415

        image = ovmf.prepare(plan.firmware, setup, plan.files).with_pieces(tables)
        image.check([*plan.memory_ranges, ovmf.region(plan.firmware, plan.files)])
    else:
        assert file is not None
        image = bios_area.add(_kernel_image(plan, file, setup).with_pieces(tables), plan.acpi.uarts)
        mp_table = [Piece(name="MP table", gpa=gpa, data=data) for gpa, data in build_mp(plan.acpi)]
        image = image.with_unless_taken(mp_table)
        image.check(plan.memory_ranges)
    return image


def _boot_file(plan: BootPlan, room: int) -> ImageFile | None:
    if plan.firmware is not None and plan.elf is not None:
        raise ConfigError("firmware starts no ELF image: give either --ovmf or -E", option="-E", value=str(plan.elf))
    if plan.kernel is not None and plan.elf is not None:
        raise ConfigError("give either a kernel (-k) or an ELF image (-E), not both", option="-E", value=str(plan.elf))
    if plan.kernel is not None:
        return plan.files.read(plan.kernel, "-k", room)
    if plan.elf is not None:
        return plan.files.read(plan.elf, "-E", room)
    if plan.firmware is not None:
        return None
    raise ConfigError("there is nothing to boot: give a kernel with -k, an ELF image with -E or firmware with --ovmf")


def _kernel_image(plan: BootPlan, file: ImageFile, setup: GuestSetup) -> BootImage:
    if file.data[:4] == ELF_MAGIC:
        from acrn_dm.boot import elf  # noqa: PLC0415

        return _elf_image(file, elf.parse(file), setup, as_kernel=plan.kernel is not None)
    if plan.kernel is None:
        raise file.error("not an ELF image; a bzImage is given with -k")
    from acrn_dm.boot import bzimage  # noqa: PLC0415

    return bzimage.prepare(file, setup)


def _elf_image(file: ImageFile, parsed: "ElfImage", setup: GuestSetup, *, as_kernel: bool) -> BootImage:
    """``-k`` takes the PVH entry only; ``-E`` prefers it in 64-bit images, and multiboot in 32-bit ones."""
    from acrn_dm.boot import multiboot, pvh  # noqa: PLC0415

    entry = pvh.entry_point(file, parsed)
    if entry is not None and (as_kernel or parsed.bits == 64):
        return pvh.prepare(file, parsed, entry, setup)
    has_header = multiboot.header_flags(file) is not None
    if not as_kernel and (has_header or parsed.bits == 32):
        return multiboot.prepare(file, parsed, setup)
    if has_header:
        raise file.error("this ELF image has no PVH entry note, but a multiboot header: give it with -E")
    missing = "no PVH entry note" if as_kernel else "neither a PVH entry note nor a multiboot header"
    raise file.error(
        f"this ELF image has {missing}, so nothing tells how to start it; of Linux, a vmlinux made with CONFIG_PVH "
        "has the note, and any bzImage is taken with -k"
    )
