"""Kinds of virtio devices by their id (virtio 1.3, 5), as far as more is known of one than its process says."""

from acrn_dm.backends.user.terms import AfterLoss
from acrn_dm.virtio import defs

MAX_ID = 63  # 4.1.2: PCI device ids of modern devices are 0x1040 to 0x107F
CRYPTO, GPU, SOUND, FS, CAN, SPI = 20, 16, 25, 26, 36, 45
IOMMU, MEM, PMEM = 23, 24, 27

# 24-bit class codes: QEMU's (hw/virtio/virtio-pci.c and its *-pci.c) where it has one of PCI's own.
PCI_CLASSES = {
    defs.BLOCK: 0x010000,
    defs.CONSOLE: 0x078000,
    defs.ENTROPY: 0x00FF00,
    defs.SCSI: 0x010000,
    defs.P9: 0x000200,
    GPU: 0x038000,
    defs.INPUT: 0x098000,
    defs.VSOCK: 0x078000,
    CRYPTO: 0x00FF00,
    SOUND: 0x040100,
    FS: 0x018000,
    defs.I2C: 0x078000,
    CAN: 0x0C0900,
    defs.GPIO: 0x078000,
    SPI: 0x078000,
}
UNKNOWN_CLASS = 0xFF0000  # "does not fit in any defined class"

IMPOSSIBLE = {
    defs.NET: "its control queue is served here, and its queues are counted in pairs: virtio-net,vhost-user=SOCKET",
    defs.BALLOON: "it gives back memory that is not its process's",
    IOMMU: "nothing here asks it for addresses",
    MEM: "vhost-user has no way to add memory to the guest",
    PMEM: "vhost-user has no way to add memory to the guest",
}

# What is done twice is as good as once, and no process knows anything of its driver: entropy, and the events and lights
# of a keyboard.
REPEATABLE = (defs.ENTROPY, defs.INPUT)


def pci_class(device_id: int) -> int:
    """The class code that devices of that kind have."""
    return PCI_CLASSES.get(device_id, UNKNOWN_CLASS)


def after_loss(device_id: int) -> AfterLoss:
    """What follows the end of the process behind a device of that kind."""
    return AfterLoss.GO_ON if device_id in REPEATABLE else AfterLoss.RESET
