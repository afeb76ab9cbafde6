"""A built machine as a record for ``--dry-run``: reads what ``machine.build.build`` decided, opens nothing."""

from pathlib import Path

from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.contract.types import HypervisorType
from acrn_dm.machine.devices import Devices
from acrn_dm.machine.report import BarReport, DeviceReport, MachineReport, RangeReport, UartReport
from acrn_dm.memory.guest_memory import guest_ranges
from acrn_dm.pci.config_space import DEVICE_ID, VENDOR_ID
from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.placement import Placed


def describe_function(function: PciFunction, provider: str) -> DeviceReport:
    """One row of the table: ids, BARs, vectors, interrupt line and backend of *function*."""
    bars = [
        BarReport(index=b.index, kind=b.kind.name.lower(), address=b.assigned, size=b.size)
        for _, b in sorted(function.bars.items())
    ]
    return DeviceReport(
        bdf=str(function.context.bdf),
        kind=function.context.kind,
        vendor=function.config.read(VENDOR_ID, 2),
        device=function.config.read(DEVICE_ID, 2),
        bars=tuple(bars),
        vectors=function.msix.vectors if function.msix is not None else 0,
        msi=function.msi is not None,
        gsi=function.intx.gsi if function.intx is not None else None,
        backend=function.placement.text if isinstance(function, Placed) else "",
        provider=provider,
    )


def describe_boot(config: MachineConfig) -> str:
    """What the guest starts from, in words."""
    firmware = config.firmware
    parts: list[tuple[str, Path | None]] = [
        ("firmware", None if firmware is None else firmware.image or firmware.code),
        ("kernel", config.kernel),
        ("ELF", config.elf),
        ("ramdisk", config.ramdisk),
    ]
    return ", ".join(f"{what} {path}" for what, path in parts if path is not None)


def describe(
    config: MachineConfig, devices: Devices, hypervisor: HypervisorType | None, plugins: PluginManager
) -> MachineReport:
    """The whole machine."""
    no_guest = [] if hypervisor is None or hypervisor.runs_guests else [f"no guest runs in {hypervisor.name}"]
    uarts = [
        UartReport(port=port.name, io_base=port.io_base, irq=port.irq, backend=port.backend_text)
        for port in devices.platform.uarts
    ]
    return MachineReport(
        name=config.name,
        hypervisor="none" if hypervisor is None else hypervisor.name,
        vcpus=config.vcpus,
        memory=tuple(RangeReport(gpa=r.gpa, size=r.size) for r in guest_ranges(config.memory_bytes)),
        boot=describe_boot(config),
        devices=tuple(describe_function(f, devices.providers.get(f.context.bdf, "")) for f in devices.functions),
        uarts=tuple(uarts),
        notes=(*no_guest, *devices.unchosen_backends(plugins)),
    )
