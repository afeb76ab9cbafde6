"""The turns of a machine's life at which its firmware wants something; where there is none, nothing is done."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from acrn_dm.base.files.claims import Claim
from acrn_dm.boot.loader import BootPlan
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange

if TYPE_CHECKING:
    from acrn_dm.devices.platform.fw_cfg import FwCfg


class FirmwareSupport:
    """The work for one machine's firmware: none."""

    fw_cfg: "FwCfg | None" = None

    def check(self) -> list[str]:
        """What would keep ``open`` from locking the files; takes nothing."""
        return []

    def claims(self) -> list[Claim]:
        """The file that keeps the guest's variables."""
        return []

    def open(self) -> tuple[MemoryRange, ...]:
        """Lock the files; return the memory that the image needs. Raises ConfigError."""
        return ()

    def prepare(self, plan: Callable[[], BootPlan]) -> None:
        """Before each boot: what the guest may ask for, of the *plan* as it is then. Raises ConfigError."""

    def save(self, memory: GuestMemory) -> None:
        """When the guest is off or resets: keep its variables."""

    def close(self) -> None:
        """Unlock the files. Idempotent."""
