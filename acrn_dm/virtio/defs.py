"""Numbers of the virtio specification that the core and the PCI transport share. Sections are those of virtio 1.2."""

import enum

VENDOR_ID = 0x1AF4  # 4.1.2
WINDOWS_SUBSYSTEM_VENDOR = 0x108E  # what the original shows with --windows
MODERN_DEVICE_BASE = 0x1040  # 4.1.2

NET = 1  # 5
BLOCK = 2
CONSOLE = 3
ENTROPY = 4
BALLOON = 5
SCSI = 8
P9 = 9
INPUT = 18
VSOCK = 19
I2C = 34
GPIO = 41

TRANSITIONAL_PCI_ID = {  # 4.1.2.1: virtio device id -> PCI device id
    NET: 0x1000,
    BLOCK: 0x1001,
    BALLOON: 0x1002,
    CONSOLE: 0x1003,
    SCSI: 0x1004,
    ENTROPY: 0x1005,
    P9: 0x1009,
}

NO_VECTOR = 0xFFFF  # 4.1.4.3


class Status(enum.IntFlag):
    """Device status field, 2.1."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Isr(enum.IntFlag):
    """ISR status byte, 4.1.4.5."""

    QUEUE = 1
    CONFIG = 2


class CapType(enum.IntEnum):
    """``cfg_type`` of a virtio PCI capability, 4.1.4."""

    COMMON = 1
    NOTIFY = 2
    ISR = 3
    DEVICE = 4
    PCI_CFG = 5
    SHARED_MEMORY = 8
    VENDOR = 9
