"""What a machine with boot firmware has to do at each turn of its life; with none, nothing."""

from acrn_dm.boot import fw_cfg_items, ovmf
from acrn_dm.boot.loader import BootPlan
from acrn_dm.config import Firmware
from acrn_dm.devices.platform.fw_cfg import FwCfg
from acrn_dm.memory import GuestMemory, MemoryRange


class FirmwareSupport:
    """Made before anything is open."""

    def __init__(self, firmware: Firmware | None) -> None:
        self._firmware = firmware
        self._store: ovmf.VariableStore | None = None
        self.fw_cfg = None if firmware is None else FwCfg()

    def open(self) -> tuple[MemoryRange, ...]:
        """Lock the files; return the memory that the image needs. Raises ConfigError."""
        if self._firmware is None:
            return ()
        self._store = ovmf.VariableStore(self._firmware)
        return (ovmf.region(self._firmware),)

    def prepare(self, plan: BootPlan) -> None:
        """Before each boot: what the guest may ask for. Raises ConfigError."""
        if self.fw_cfg is not None:
            self.fw_cfg.fill(fw_cfg_items.items(plan))

    def save(self, memory: GuestMemory) -> None:
        """When the guest is off or resets: keep its variables."""
        if self._store is not None:
            self._store.save(memory)

    def close(self) -> None:
        """Unlock the files. Idempotent."""
        if self._store is not None:
            self._store.close()
