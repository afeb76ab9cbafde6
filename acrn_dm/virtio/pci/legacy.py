"""The legacy register structure in BAR 0, I/O space (spec 4.1.4.8).

Twenty bytes of header, four more with the vectors while MSI-X is enabled, then the device's configuration.
"""

from collections.abc import Callable

from acrn_dm.virtio.core import VirtioCore
from acrn_dm.virtio.defs import NO_VECTOR
from acrn_dm.virtio.features import LOW_WORD
from acrn_dm.virtio.pci.device_config import DeviceConfig
from acrn_dm.virtio.pci.registers import Register, RegisterMap
from acrn_dm.virtio.queue_config import QueueConfig

HEADER_SIZE = 20
HEADER_SIZE_MSIX = 24
NOTIFY_OFFSET = 0x10
NOTIFY_LENGTH = 2


def _queue(read: Callable[[QueueConfig], int], absent: int = 0) -> Callable[[VirtioCore], int]:
    def reader(core: VirtioCore) -> int:
        queue = core.selected
        return absent if queue is None else read(queue)

    return reader


def _select(core: VirtioCore, value: int) -> None:
    core.queue_select = value


HEADER: RegisterMap[VirtioCore] = RegisterMap(
    (
        Register("device_features", 0x00, 4, lambda c: c.legacy_offered),
        Register("driver_features", 0x04, 4, lambda c: c.driver_features & LOW_WORD, VirtioCore.write_legacy_features),
        Register("queue_address", 0x08, 4, _queue(lambda q: q.pfn), VirtioCore.write_queue_pfn),
        Register("queue_size", 0x0C, 2, _queue(lambda q: q.size)),
        Register("queue_select", 0x0E, 2, lambda c: c.queue_select, _select),
        Register("queue_notify", NOTIFY_OFFSET, 2, None, lambda c, v: c.notify(v, legacy=True)),
        Register("device_status", 0x12, 1, lambda c: c.status, lambda c, v: c.write_status(v, legacy=True)),
        Register("isr_status", 0x13, 1, lambda c: c.host.read_isr()),
        Register("config_msix_vector", 0x14, 2, lambda c: c.config_vector, VirtioCore.write_config_vector),
        Register("queue_msix_vector", 0x16, 2, _queue(lambda q: q.vector, NO_VECTOR), VirtioCore.write_queue_vector),
    )
)


def bar_size(config_size: int) -> int:
    """Bytes BAR 0 needs: the longer header and the device's configuration."""
    return HEADER_SIZE_MSIX + config_size


class LegacyBar:
    """Handler of BAR 0. Called with the function's lock held."""

    def __init__(self, core: VirtioCore, config: DeviceConfig, msix_enabled: Callable[[], bool]) -> None:
        self._core = core
        self._config = config
        self._msix_enabled = msix_enabled

    def read(self, offset: int, size: int) -> int:
        """Read as the driver does."""
        self._core.settle()
        start = self._config_start()
        return self._config.read(offset - start, size) if offset >= start else HEADER.read(self._core, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write as the driver does."""
        self._core.settle()
        start = self._config_start()
        if offset >= start:
            self._config.write(offset - start, size, value, legacy=True)
        else:
            HEADER.write(self._core, offset, size, value)

    def _config_start(self) -> int:
        return HEADER_SIZE_MSIX if self._msix_enabled() else HEADER_SIZE
