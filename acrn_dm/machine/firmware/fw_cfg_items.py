"""The items that firmware made for QEMU finds in the configuration device: kernel, memory map, ACPI and SMBIOS tables,
boot order.
"""

import struct
from collections.abc import Callable

from acrn_dm.boot import bzimage, e820
from acrn_dm.boot.acpi.linker import RSDP, TABLES, link
from acrn_dm.boot.image import low_memory_end
from acrn_dm.boot.loader import BootPlan
from acrn_dm.devices.platform import fw_cfg


def items(current: Callable[[], BootPlan]) -> dict[int, fw_cfg.Item]:
    """Return the items by number. Raises ConfigError.

    *current* tells what is to be booted, and is asked again when the firmware takes the ACPI tables: by then it has
    moved the devices' BARs.
    """
    plan = current()
    linked = link(plan.acpi)
    # Whole ranges: firmware knows the hole below 1 MiB by itself.
    ram = [e820.E820Entry(base=r.gpa, size=r.size, type=e820.RAM) for r in plan.memory_ranges]
    files: dict[str, fw_cfg.Item] = {
        "etc/e820": e820.pack(ram),
        RSDP: linked.rsdp,
        TABLES: lambda: link(current().acpi).tables,
        "etc/table-loader": linked.script,
        "etc/boot-menu-wait": struct.pack("<H", 0),
    }
    smbios = plan.smbios()
    if smbios is not None:
        files["etc/smbios/smbios-anchor"] = smbios.entry_32
        files["etc/smbios/smbios-tables"] = smbios.table
    if plan.disks:
        files["bootorder"] = "\n".join(_disk(*place) for place in plan.disks).encode() + b"\0"
    return fw_cfg.contents(_kernel(plan), files, len(plan.acpi.apic_ids))


def _disk(slot: int, function: int) -> str:
    """The OpenFirmware path that QEMU has for a virtio disk."""
    place = f"{slot:x},{function:x}" if function else f"{slot:x}"
    return f"/pci@i0cf8/scsi@{place}/disk@0,0"


def _kernel(plan: BootPlan) -> dict[int, bytes]:
    """A kernel that the firmware is to start instead of looking for one on a disk."""
    if plan.kernel is None:
        return {}
    room = low_memory_end(plan.memory_ranges)
    kernel = plan.files.read(plan.kernel, "-k", room)
    setup_size = bzimage.parse_header(kernel).setup_size
    setup, rest = kernel.data[:setup_size], kernel.data[setup_size:]
    ramdisk = b"" if plan.ramdisk is None else plan.files.read(plan.ramdisk, "-r", room).data
    line = plan.bootargs.encode() + b"\0"
    sized = (
        (fw_cfg.SETUP_SIZE, fw_cfg.SETUP_DATA, setup),
        (fw_cfg.KERNEL_SIZE, fw_cfg.KERNEL_DATA, rest),
        (fw_cfg.INITRD_SIZE, fw_cfg.INITRD_DATA, ramdisk),
        (fw_cfg.COMMAND_LINE_SIZE, fw_cfg.COMMAND_LINE, line),
    )
    found = {}
    for size, at, data in sized:
        found[size], found[at] = struct.pack("<I", len(data)), data
    return found
