"""The modern register structures in BAR 4 (spec 4.1.4): common configuration, ISR, device configuration, notifications.

====== ====== ============================
0x0000 0x1000 common configuration
0x1000 0x1000 ISR status
0x2000 0x1000 device-specific configuration
0x3000 0x1000 notifications, 4 bytes a queue
====== ====== ============================
"""

from collections.abc import Callable

from acrn_dm.virtio.core import VirtioCore
from acrn_dm.virtio.defs import NO_VECTOR
from acrn_dm.virtio.pci.device_config import DeviceConfig
from acrn_dm.virtio.pci.registers import Register, RegisterMap, all_ones
from acrn_dm.virtio.queue_config import QueueConfig

BAR_SIZE = 0x4000
REGION_SIZE = 0x1000
COMMON_OFFSET = 0x0000
ISR_OFFSET = 0x1000
DEVICE_OFFSET = 0x2000
NOTIFY_OFFSET = 0x3000
NOTIFY_MULTIPLIER = 4
MAX_QUEUES = REGION_SIZE // NOTIFY_MULTIPLIER

LOW_HALF = 0xFFFF_FFFF


def _queue(read: Callable[[QueueConfig], int], absent: int = 0) -> Callable[[VirtioCore], int]:
    """Read a field of the selected queue; registers of a queue that does not exist read as *absent*."""

    def reader(core: VirtioCore) -> int:
        queue = core.selected
        return absent if queue is None else read(queue)

    return reader


def _half(name: str, high: bool) -> tuple[Callable[[VirtioCore], int], Callable[[VirtioCore, int], None]]:
    """Reader and writer of one half of a queue's 64-bit address; the halves are independent (4.1.3.1)."""
    shift = 32 if high else 0

    def write(core: VirtioCore, value: int) -> None:
        queue = core.writable_queue()
        if queue is not None:
            kept = getattr(queue, name) & ~(LOW_HALF << shift)
            setattr(queue, name, kept | value << shift)

    return _queue(lambda queue: getattr(queue, name) >> shift & LOW_HALF), write


def _assign(name: str) -> Callable[[VirtioCore, int], None]:
    return lambda core, value: setattr(core, name, value)


COMMON: RegisterMap[VirtioCore] = RegisterMap(
    (
        Register("device_feature_select", 0x00, 4, lambda c: c.device_feature_select, _assign("device_feature_select")),
        Register("device_feature", 0x04, 4, lambda c: c.device_feature),
        Register("driver_feature_select", 0x08, 4, lambda c: c.driver_feature_select, _assign("driver_feature_select")),
        Register("driver_feature", 0x0C, 4, lambda c: c.driver_feature, VirtioCore.write_driver_feature),
        Register("config_msix_vector", 0x10, 2, lambda c: c.config_vector, VirtioCore.write_config_vector),
        Register("num_queues", 0x12, 2, lambda c: len(c.queues)),
        Register("device_status", 0x14, 1, lambda c: c.status, lambda c, v: c.write_status(v)),
        Register("config_generation", 0x15, 1, lambda c: c.config_generation),
        Register("queue_select", 0x16, 2, lambda c: c.queue_select, _assign("queue_select")),
        Register("queue_size", 0x18, 2, _queue(lambda q: q.size), VirtioCore.write_queue_size),
        Register("queue_msix_vector", 0x1A, 2, _queue(lambda q: q.vector, NO_VECTOR), VirtioCore.write_queue_vector),
        Register("queue_enable", 0x1C, 2, _queue(lambda q: int(q.enabled)), VirtioCore.write_queue_enable),
        Register("queue_notify_off", 0x1E, 2, _queue(lambda q: q.index)),
        Register("queue_desc_lo", 0x20, 4, *_half("desc", high=False)),
        Register("queue_desc_hi", 0x24, 4, *_half("desc", high=True)),
        Register("queue_driver_lo", 0x28, 4, *_half("avail", high=False)),
        Register("queue_driver_hi", 0x2C, 4, *_half("avail", high=True)),
        Register("queue_device_lo", 0x30, 4, *_half("used", high=False)),
        Register("queue_device_hi", 0x34, 4, *_half("used", high=True)),
        # What a driver with NOTIF_CONFIG_DATA puts into its kicks, to tell queues by: the index does that.
        Register("queue_notif_config_data", 0x38, 2, _queue(lambda q: q.index)),
        Register("queue_reset", 0x3A, 2, lambda c: c.queue_reset, VirtioCore.write_queue_reset),
    )
)


class ModernBar:
    """Handler of BAR 4. Called with the function's lock held."""

    def __init__(self, core: VirtioCore, config: DeviceConfig) -> None:
        self._core = core
        self._config = config

    def read(self, offset: int, size: int) -> int:
        """Read as the driver does."""
        region, inner = offset - offset % REGION_SIZE, offset % REGION_SIZE
        if region == COMMON_OFFSET:
            self._core.settle()
            return COMMON.read(self._core, inner, size)
        if region == DEVICE_OFFSET:
            return self._config.read(inner, size)
        if region == ISR_OFFSET:
            return self._core.host.read_isr() if inner == 0 else 0
        return all_ones(size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write as the driver does. A notification counts by its place: its value repeats the index, and with
        NOTIFICATION_DATA says how far the ring is filled (4.1.5.2), for devices that fetch it ahead.
        """
        region, inner = offset - offset % REGION_SIZE, offset % REGION_SIZE
        if region == COMMON_OFFSET:
            self._core.settle()
            COMMON.write(self._core, inner, size, value)
        elif region == DEVICE_OFFSET:
            self._config.write(inner, size, value)
        elif region == NOTIFY_OFFSET:
            self._core.notify(inner // NOTIFY_MULTIPLIER)
