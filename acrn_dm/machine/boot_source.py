"""The boot source of the guest: kernel, ramdisk and firmware, and what they are told of the machine."""

import attrs

from acrn_dm.base.records import define
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.boot.files import KeptFiles
from acrn_dm.boot.loader import BootPlan
from acrn_dm.boot.smbios.identity import Identity, lasting_uuid
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.processors import ProcessorPower
from acrn_dm.machine.devices import Devices
from acrn_dm.memory.guest_memory import MemoryRange
from acrn_dm.pci.bus import PciBus
from acrn_dm.virtio.pci.transport import VirtioPci

VIRTIO_BLK = 2  # device id


@define(eq=False)
class BootSource:
    """The source of one machine's boots.

    *files* are read once and kept: a reset opens no path. *ranges* is the guest's RAM.
    """

    config: MachineConfig
    devices: Devices
    files: KeptFiles
    ranges: tuple[MemoryRange, ...]
    _apic_ids: tuple[int, ...] | None = attrs.field(default=None, init=False)  # None: as long as there is no VM
    _power: tuple[ProcessorPower, ...] = attrs.field(default=(), init=False)

    def processors_of(self, vm: Hypervisor) -> None:
        """Tell the guest of *vm*'s processors, as they are at this start."""
        self._apic_ids, self._power = vm.apic_ids, vm.processor_power()

    def plan(self) -> BootPlan:
        """What the loader is to put into memory, as devices and processors are now."""
        config = self.config
        return BootPlan(
            kernel=config.kernel,
            elf=config.elf,
            firmware=config.firmware,
            ramdisk=config.ramdisk,
            bootargs=config.bootargs,
            memory_ranges=self.ranges,
            acpi=self._acpi(),
            identity=Identity(name=config.name, uuid=config.uuid or lasting_uuid(config.name)),
            disks=boot_disks(config, self.devices.bus),
            files=self.files,
        )

    def _acpi(self) -> AcpiInputs:
        bus, platform = self.devices.bus, self.devices.platform
        return AcpiInputs(
            apic_ids=tuple(range(self.config.vcpus)) if self._apic_ids is None else self._apic_ids,
            power=self._power,
            prt=bus.prt(),
            uarts=platform.acpi_uarts(),
            last_bus=bus.last_bus,
            mmio64=bus.mmio64_window(),
            pm_timer_port=platform.pm_timer_port,
            # Firmware moves the tables, and with them the waking vector, to a place of its own.
            s3=self.config.firmware is None,
        )


def boot_disks(config: MachineConfig, bus: PciBus) -> tuple[tuple[int, int], ...]:
    """Slot and function of each disk of bus 0, those marked with ``,b`` first."""
    marked = {spec.bdf for spec in config.devices if spec.bootable}
    disks = [
        f.context.bdf
        for f in bus.functions
        if isinstance(f, VirtioPci) and f.device.device_id == VIRTIO_BLK and f.context.bdf.bus == 0
    ]
    return tuple((bdf.slot, bdf.func) for bdf in sorted(disks, key=lambda bdf: bdf not in marked))
