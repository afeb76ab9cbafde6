"""From the configuration to what hypervisor, memory and loader are asked for."""

import logging
from collections.abc import Sequence

from acrn_dm.base.errors import HostError
from acrn_dm.base.files import descriptors as open_files
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.boot.files import KeptFiles
from acrn_dm.boot.loader import BootPlan
from acrn_dm.boot.smbios.identity import Identity, lasting_uuid
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.processors import ProcessorPower
from acrn_dm.contract.types import HypervisorOptions, HypervisorType
from acrn_dm.devices.platform import Platform
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from acrn_dm.memory.hugepages import HugePages
from acrn_dm.pci.bar import BarKind
from acrn_dm.pci.bus import PciBus
from acrn_dm.pci.layout import MEM64_WINDOW
from acrn_dm.virtio.pci.transport import VirtioPci
from acrn_dm.virtio.placement import USERSPACE

log = logging.getLogger(__name__)

GIB = 1 << 30
VIRTIO_BLK = 2  # device id
MAKES_ANOTHER_GUEST = frozenset({"enable_trusty"})  # the others change how fast it runs
FILES_OF_A_DEVICE = 4  # an image, a tap, a socket and its client


def asked_options(config: MachineConfig) -> dict[str, object]:
    """The options that only some hypervisors have (``HypervisorType.takes``), by name, as far as they were given."""
    values = {
        "rtvm": config.rtvm,
        "lapic_pt": config.lapic_pt,
        "intr_monitor": config.interrupt_monitor,
        "enable_trusty": config.enable_trusty,
    }
    return {name: value for name, value in values.items() if value}


def hypervisor_options(config: MachineConfig, hypervisor: HypervisorType) -> HypervisorOptions:
    """What *hypervisor* is to make."""
    taken = {name: value for name, value in asked_options(config).items() if name in hypervisor.takes}
    return HypervisorOptions(
        name=config.name,
        vcpus=config.vcpus,
        allow_slow=config.allow_slow,
        cpu_affinity=config.cpu_affinity,
        plugin_options={**config.plugin_options, **taken},
    )


def unprovided(config: MachineConfig, hypervisor: HypervisorType) -> tuple[list[str], list[str]]:
    """Return what *hypervisor* ignores of what was asked for, and what it can't do without making another guest of it,
    one line each.
    """
    reason = f"{hypervisor.name} has none; it needs the hypervisor hsm"
    missing = [name for name in asked_options(config) if name not in hypervisor.takes]
    ignored = [f"--{name}: ignored: {reason}" for name in missing if name not in MAKES_ANOTHER_GUEST]
    if config.lapic_pt and "lapic_pt" in hypervisor.takes and not config.rtvm:
        ignored.append("--lapic_pt: ignored: only with --rtvm")
    refused = [f"--{name}: {reason}" for name in missing if name in MAKES_ANOTHER_GUEST]
    return ignored, refused + hypervisor.check(hypervisor_options(config, hypervisor))


def allocate_memory(config: MachineConfig, ranges: Sequence[MemoryRange], *, wanted: bool) -> GuestMemory:
    """Allocate all of the guest's memory; in huge pages if the user says so, or the hypervisor *wanted* them.

    Raises HostError.
    """
    if config.hugepages == "on" or (config.hugepages == "auto" and wanted):
        try:
            return GuestMemory.allocate(ranges, HugePages(), dumped=config.dump_guest_core)
        except HostError as e:
            if config.hugepages == "on":
                raise
            log.warning("guest memory is in ordinary pages, which is slower: %s", e)
    return GuestMemory.allocate(ranges, dumped=config.dump_guest_core)


def boot_plan(
    config: MachineConfig,
    bus: PciBus,
    platform: Platform,
    ranges: Sequence[MemoryRange],
    *,
    apic_ids: tuple[int, ...],
    files: KeptFiles,
    power: tuple[ProcessorPower, ...] = (),
) -> BootPlan:
    """What the loader is to put into memory."""
    acpi = AcpiInputs(
        apic_ids=apic_ids,
        power=power,
        prt=bus.prt(),
        uarts=platform.acpi_uarts(),
        last_bus=bus.last_bus,
        mmio64=mmio64_window(bus),
        pm_timer_port=platform.pm_timer_port,
        s3=config.firmware is None,  # firmware moves the tables, and with them the waking vector, to a place of its own
    )
    return BootPlan(
        kernel=config.kernel,
        elf=config.elf,
        firmware=config.firmware,
        ramdisk=config.ramdisk,
        bootargs=config.bootargs,
        memory_ranges=ranges,
        acpi=acpi,
        identity=Identity(name=config.name, uuid=config.uuid or lasting_uuid(config.name)),
        disks=boot_disks(config, bus),
        files=files,
    )


def mmio64_window(bus: PciBus) -> tuple[int, int]:
    """First and last address of the window for 64-bit BARs: ours, or what holds all of them where firmware has put one
    elsewhere (QEMU describes its windows in the same way, after the fact).
    """
    bars = [bar for f in bus.functions for bar in f.bars.values() if bar.kind is BarKind.MEM64 and bar.base >= 4 * GIB]
    if all(MEM64_WINDOW.base <= bar.base and bar.base + bar.size <= MEM64_WINDOW.end for bar in bars):
        return MEM64_WINDOW.base, MEM64_WINDOW.end - 1
    first, end = min(bar.base for bar in bars), max(bar.base + bar.size for bar in bars)
    return first // GIB * GIB, -(-end // GIB) * GIB - 1


def boot_disks(config: MachineConfig, bus: PciBus) -> tuple[tuple[int, int], ...]:
    """Slot and function of each disk of bus 0, those marked with ``,b`` first."""
    marked = {spec.bdf for spec in config.devices if spec.bootable}
    disks = [
        f.context.bdf
        for f in bus.functions
        if isinstance(f, VirtioPci) and f.device.device_id == VIRTIO_BLK and f.context.bdf.bus == 0
    ]
    return tuple((bdf.slot, bdf.func) for bdf in sorted(disks, key=lambda bdf: bdf not in marked))


def descriptors(config: MachineConfig, bus: PciBus) -> int:
    """How many files the machine has open when every driver uses all queues, a little more rather than less.

    A queue has an eventfd for kicks and one for calls. Where another process or the kernel moves the data, there are up
    to two more: of a vhost node and its errors, or of a shadow ring.
    """
    needed = 64 + 2 * config.vcpus
    for function in bus.functions:
        if isinstance(function, VirtioPci):
            each = 2 if function.placement.backend == USERSPACE else 4
            needed += FILES_OF_A_DEVICE + each * len(function.device.queue_sizes)
    return needed


def check_memory(config: MachineConfig) -> list[str]:
    """One line where the huge pages that were asked for can't be had."""
    shortage = HugePages().shortage(config.memory_bytes) if config.hugepages == "on" else None
    return [] if shortage is None else [f"--hugepages: {config.hugepages!r}: {shortage}"]


def check_descriptors(config: MachineConfig, bus: PciBus) -> list[str]:
    """One line where the host does not let us open as many files."""
    needed, limit = descriptors(config, bus), open_files.limit()
    text = f"the machine needs {needed} file descriptors, and {limit} is the limit"
    return [] if needed <= limit else [f"{text}; raise it (ulimit -Hn {needed}, or LimitNOFILE= of a service)"]
