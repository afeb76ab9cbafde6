"""A virtio device's registers as a driver reaches them: modern through vendor capabilities, legacy through BAR 0.

Offsets stand here a second time on purpose: a driver knows them from the specification (4.1.4.3, 4.1.4.8), not from us.
"""

from typing import Protocol

import attrs

from acrn_dm.ring.layout import RingLayout
from acrn_dm.testing.guest_pci import CAP_VENDOR, GuestFunction

NO_VECTOR = 0xFFFF
FEATURE_WORDS = 4
PAGE = 4096

COMMON = {
    "device_feature_select": (0x00, 4),
    "device_feature": (0x04, 4),
    "driver_feature_select": (0x08, 4),
    "driver_feature": (0x0C, 4),
    "config_msix_vector": (0x10, 2),
    "num_queues": (0x12, 2),
    "device_status": (0x14, 1),
    "config_generation": (0x15, 1),
    "queue_select": (0x16, 2),
    "queue_size": (0x18, 2),
    "queue_msix_vector": (0x1A, 2),
    "queue_enable": (0x1C, 2),
    "queue_notify_off": (0x1E, 2),
    "queue_desc": (0x20, 8),
    "queue_driver": (0x28, 8),
    "queue_device": (0x30, 8),
    "queue_notif_config_data": (0x38, 2),
    "queue_reset": (0x3A, 2),
}

LEGACY = {
    "device_features": (0x00, 4),
    "driver_features": (0x04, 4),
    "queue_address": (0x08, 4),
    "queue_size": (0x0C, 2),
    "queue_select": (0x0E, 2),
    "queue_notify": (0x10, 2),
    "device_status": (0x12, 1),
    "isr_status": (0x13, 1),
    "config_msix_vector": (0x14, 2),
    "queue_msix_vector": (0x16, 2),
}


class Registers(Protocol):
    """The transport, as far as a driver needs it; the same words for both kinds."""

    legacy: bool
    ring_alignment: int  # of the used ring

    def read(self, name: str) -> int:
        """Read a register by name."""

    def write(self, name: str, value: int) -> None:
        """Write a register by name."""

    def offered(self) -> int:
        """Feature bits the device offers."""

    def accept(self, features: int) -> None:
        """Write the driver's feature bits."""

    def queue_size(self, index: int) -> int:
        """Select a queue and return its size; 0 if there is no such queue."""

    def place_queue(self, index: int, layout: RingLayout) -> None:
        """Tell where the ring is and enable the queue."""

    def map_vector(self, index: int | None, vector: int) -> int:
        """Map a queue, or configuration changes (None), to a vector; returns what reads back."""

    def notify(self, index: int) -> None:
        """Kick."""

    def read_isr(self) -> int:
        """ISR status; reading clears it."""

    def read_config(self, offset: int, size: int) -> int:
        """Device configuration."""

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Device configuration."""


def _map_vector(registers: Registers, index: int | None, vector: int) -> int:
    if index is None:
        registers.write("config_msix_vector", vector)
        return registers.read("config_msix_vector")
    registers.write("queue_select", index)
    registers.write("queue_msix_vector", vector)
    return registers.read("queue_msix_vector")


@attrs.frozen(kw_only=True)
class Structure:
    """A vendor capability: where one of the modern structures is. *at* is its offset in the configuration space."""

    type: int
    bar: int
    offset: int = attrs.field(repr=hex)
    length: int = attrs.field(repr=hex)
    cap_length: int
    at: int = attrs.field(repr=hex)


def find_structures(function: GuestFunction) -> list[Structure]:
    """All virtio structures *function* announces, in list order."""
    read = function.read
    return [
        Structure(
            type=read(cap.at + 3, 1),
            bar=read(cap.at + 4, 1),
            offset=read(cap.at + 8, 4),
            length=read(cap.at + 12, 4),
            cap_length=read(cap.at + 2, 1),
            at=cap.at,
        )
        for cap in function.capabilities
        if cap.id == CAP_VENDOR
    ]


class ModernRegisters:
    """``Registers`` through the first capability of each type."""

    legacy = False
    ring_alignment = 4

    def __init__(self, function: GuestFunction) -> None:
        self.function = function
        self.structures: dict[int, Structure] = {}
        for structure in find_structures(function):
            self.structures.setdefault(structure.type, structure)
        self.common, self.notification, self.isr = (self.structures[kind] for kind in (1, 2, 3))
        self.config = self.structures.get(4)
        self.multiplier = function.read(self.notification.at + 16, 4)

    def read(self, name: str) -> int:
        """Read a common configuration field."""
        offset, size = COMMON[name]
        return self.raw_read(offset, size)

    def write(self, name: str, value: int) -> None:
        """Write a common configuration field; 64-bit ones as two halves."""
        offset, size = COMMON[name]
        if size == 8:
            self.raw_write(offset, 4, value & 0xFFFF_FFFF)
            self.raw_write(offset + 4, 4, value >> 32)
        else:
            self.raw_write(offset, size, value)

    def raw_read(self, offset: int, size: int) -> int:
        """Read anywhere in the common configuration, any size."""
        return self.function.bar_read(self.common.bar, self.common.offset + offset, size)

    def raw_write(self, offset: int, size: int, value: int) -> None:
        """Write anywhere in the common configuration, any size."""
        self.function.bar_write(self.common.bar, self.common.offset + offset, size, value)

    def offered(self) -> int:
        """Feature bits the device offers."""
        words = []
        for select in range(FEATURE_WORDS):
            self.write("device_feature_select", select)
            words.append(self.read("device_feature") << 32 * select)
        return sum(words)

    def accept(self, features: int) -> None:
        """Write the driver's feature bits."""
        for select in range(FEATURE_WORDS):
            self.write("driver_feature_select", select)
            self.write("driver_feature", features >> 32 * select & 0xFFFF_FFFF)

    def queue_size(self, index: int) -> int:
        """Select a queue and return its size."""
        self.write("queue_select", index)
        return self.read("queue_size")

    def place_queue(self, index: int, layout: RingLayout) -> None:
        """Size, addresses, enable."""
        self.write("queue_select", index)
        self.write("queue_size", layout.size)
        self.write("queue_desc", layout.desc)
        self.write("queue_driver", layout.avail)
        self.write("queue_device", layout.used)
        self.write("queue_enable", 1)

    def map_vector(self, index: int | None, vector: int) -> int:
        """Map a queue, or configuration changes (None), to a vector."""
        return _map_vector(self, index, vector)

    def notify_address(self, index: int) -> int:
        """Offset in its BAR of a queue's notify register."""
        self.write("queue_select", index)
        return self.notification.offset + self.read("queue_notify_off") * self.multiplier

    def notify(self, index: int) -> None:
        """Kick with a 16-bit write."""
        self.function.bar_write(self.notification.bar, self.notify_address(index), 2, index)

    def notify_data(self, index: int, named: int, ahead: int) -> None:
        """Kick with a 32-bit write, as with NOTIFICATION_DATA: how the queue is *named*, and where its next chain is
        going to be, in 16 bits each (2.9).
        """
        self.function.bar_write(self.notification.bar, self.notify_address(index), 4, named | ahead << 16)

    def read_isr(self) -> int:
        """ISR status; reading clears it."""
        return self.function.bar_read(self.isr.bar, self.isr.offset, 1)

    def read_config(self, offset: int, size: int) -> int:
        """Device configuration. Raises LookupError if the device has none."""
        config = self._config()
        return self.function.bar_read(config.bar, config.offset + offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Device configuration. Raises LookupError if the device has none."""
        config = self._config()
        self.function.bar_write(config.bar, config.offset + offset, size, value)

    def _config(self) -> Structure:
        if self.config is None:
            raise LookupError("the device has no configuration space")
        return self.config


class LegacyRegisters:
    """``Registers`` in BAR 0."""

    legacy = True
    ring_alignment = PAGE

    def __init__(self, function: GuestFunction) -> None:
        if 0 not in function.bars or not function.bars[0].io:
            raise LookupError("BAR 0 is not in I/O space: no legacy device")
        self.function = function

    def read(self, name: str) -> int:
        """Read a header field."""
        offset, size = LEGACY[name]
        return self.function.bar_read(0, offset, size)

    def write(self, name: str, value: int) -> None:
        """Write a header field."""
        offset, size = LEGACY[name]
        self.function.bar_write(0, offset, size, value)

    def offered(self) -> int:
        """Feature bits 0 to 31."""
        return self.read("device_features")

    def accept(self, features: int) -> None:
        """Write feature bits 0 to 31."""
        self.write("driver_features", features & 0xFFFF_FFFF)

    def queue_size(self, index: int) -> int:
        """Select a queue and return its size."""
        self.write("queue_select", index)
        return self.read("queue_size")

    def place_queue(self, index: int, layout: RingLayout) -> None:
        """Write the page number, which enables the queue."""
        self.write("queue_select", index)
        self.write("queue_address", layout.desc // PAGE)

    def map_vector(self, index: int | None, vector: int) -> int:
        """Map a queue, or configuration changes (None), to a vector; NO_VECTOR while MSI-X is off."""
        return _map_vector(self, index, vector) if self._msix else NO_VECTOR

    def notify(self, index: int) -> None:
        """Kick with a 16-bit write."""
        self.write("queue_notify", index)

    def read_isr(self) -> int:
        """ISR status; reading clears it."""
        return self.read("isr_status")

    def read_config(self, offset: int, size: int) -> int:
        """Device configuration, which moves with MSI-X."""
        return self.function.bar_read(0, self.config_start + offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Device configuration, which moves with MSI-X."""
        self.function.bar_write(0, self.config_start + offset, size, value)

    @property
    def config_start(self) -> int:
        """Where the device configuration begins now."""
        return 24 if self._msix else 20

    @property
    def _msix(self) -> bool:
        return self.function.msix_enabled
