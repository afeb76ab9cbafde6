"""The work for boot firmware: what a machine that has one does at each turn of its life.

Firmware made for QEMU knows no other platform than QEMU's, by the chips at two places of the PCI bus; ACRN's firmware
knows ACRN's host bridge only. So the chips are chosen by the image.
"""

import logging
from collections.abc import Callable

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.files.claims import Claim
from acrn_dm.boot import ovmf
from acrn_dm.boot.files import KeptFiles
from acrn_dm.boot.loader import BootPlan
from acrn_dm.contract.config import DeviceSpec, Firmware, MachineConfig
from acrn_dm.contract.types import Bdf
from acrn_dm.devices.platform.fw_cfg import FwCfg
from acrn_dm.machine.firmware import fw_cfg_items
from acrn_dm.machine.firmware.no_firmware import FirmwareSupport
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange

log = logging.getLogger(__name__)

HOST_BRIDGES = frozenset({"hostbridge", "amd_hostbridge"})  # what stands for "whatever the guest needs"
QEMU_CHIPS = {Bdf(slot=0): "i440fx", Bdf(slot=1, func=3): "piix4-pm"}


def with_chips(config: MachineConfig, files: KeptFiles) -> MachineConfig:
    """Add the chips by which the firmware knows its platform, as ``firmware.with_chips``. Raises ConfigError."""
    if config.firmware is None or not ovmf.made_for_qemu(config.firmware, files):
        return config
    if config.firmware.writeback:
        log.warning("%s: w: no variables are kept: this firmware, made for QEMU, wants a flash device", ovmf.OPTION)
    devices = {spec.bdf: spec for spec in config.devices}
    for place, kind in QEMU_CHIPS.items():
        found = devices.get(place)
        if found is None or (kind == "i440fx" and found.kind in HOST_BRIDGES):
            devices[place] = DeviceSpec(bdf=place, kind=kind, origin=f"{ovmf.OPTION}: {place},{kind}")
        elif found.kind != kind:
            text = f"this firmware, made for QEMU, needs {kind} in slot {place}; move {found.kind} elsewhere"
            raise ConfigError(text, option="-s", value=f"{place},{found.kind}")
    return attrs.evolve(config, devices=tuple(devices.values()))


class OvmfSupport(FirmwareSupport):
    """The work for an image of OVMF. Made before anything is open."""

    fw_cfg: FwCfg

    def __init__(self, firmware: Firmware, files: KeptFiles) -> None:
        self._firmware = firmware
        self._files = files
        self._store: ovmf.VariableStore | None = None
        self.fw_cfg = FwCfg()

    def check(self) -> list[str]:
        """What would keep ``open`` from locking the files; takes nothing."""
        return ovmf.check(self._firmware)

    def claims(self) -> list[Claim]:
        """The file that keeps the guest's variables."""
        return ovmf.claims(self._firmware)

    def open(self) -> tuple[MemoryRange, ...]:
        """Lock the files; return the memory that the image needs. Raises ConfigError."""
        self._store = ovmf.VariableStore(self._firmware, self._files)
        return (ovmf.region(self._firmware, self._files),)

    def prepare(self, plan: Callable[[], BootPlan]) -> None:
        """Before each boot: what the guest may ask for, of the *plan* as it is then. Raises ConfigError."""
        self.fw_cfg.fill(fw_cfg_items.items(plan))

    def save(self, memory: GuestMemory) -> None:
        """When the guest is off or resets: keep its variables."""
        if self._store is not None:
            self._store.save(memory)

    def close(self) -> None:
        """Unlock the files. Idempotent."""
        if self._store is not None:
            self._store.close()
