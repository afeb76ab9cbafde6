"""Options of ``vhost-user-device``: what a driver finds before the process is asked: kind, queues, size of the
configuration space.
"""

from pathlib import Path

import attrs

from acrn_dm.backends.wire.payload import MAX_CONFIG, MAX_QUEUES
from acrn_dm.base.records import frozen
from acrn_dm.contract.options import option, socket_option
from acrn_dm.devices.vhost_user.kinds import IMPOSSIBLE, MAX_ID, pci_class
from acrn_dm.ring.layout import MAX_QUEUE_SIZE, is_queue_size

QUEUE_SIZE = 64  # as QEMU's: back-ends refuse larger ones than theirs
MAX_CLASS = 0xFFFFFF


def _id(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 1 <= value <= MAX_ID:
        raise ValueError(f"id={value}: expected the number of a virtio device, 1 to {MAX_ID}")
    if value in IMPOSSIBLE:
        raise ValueError(f"id={value}: {IMPOSSIBLE[value]}")


def _queues(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 1 <= value <= MAX_QUEUES:
        raise ValueError(f"queues={value}: expected 1 to {MAX_QUEUES}")


def _queue_size(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not is_queue_size(value):
        raise ValueError(f"queue_size={value}: expected a power of two up to {MAX_QUEUE_SIZE}")


def _config(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 0 <= value <= MAX_CONFIG:
        raise ValueError(f"config={value}: expected 0 to {MAX_CONFIG} bytes")


def _pci_class(instance: object, attribute: "attrs.Attribute[int | None]", value: int | None) -> None:
    if value is not None and not 0 <= value <= MAX_CLASS:
        raise ValueError(f"pci_class={value:#x}: expected 24 bits, as 0x018000")


@frozen(kw_only=True)
class ForeignConfig:
    """The options of one such device. Features are the process's to say, and the configuration space its to fill."""

    id: int = option(validator=_id, help="Virtio device id: what the device is (26: a file system).")
    queues: int = option(validator=_queues, help="Number of queues that devices of that kind have.")
    socket: Path = socket_option("Socket of the process that is the device.")
    config: int = option(
        default=0, validator=_config, metavar="BYTES", help="Size of the configuration space, which the process fills."
    )
    queue_size: int = option(default=QUEUE_SIZE, validator=_queue_size, help="Largest size of each queue.")
    pci_class: int | None = option(
        default=None, validator=_pci_class, help="PCI class code, 24 bits; by default that of the kind."
    )

    @property
    def class_code(self) -> int:
        """What the function has in its header."""
        return pci_class(self.id) if self.pci_class is None else self.pci_class
