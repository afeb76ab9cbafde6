"""Options of ``virtio-fs``. Which folder it is, and how it is shared, virtiofsd is told."""

from pathlib import Path

import attrs

from acrn_dm.backends.wire.payload import MAX_QUEUES
from acrn_dm.base.records import frozen
from acrn_dm.contract.options import option, socket_option
from acrn_dm.ring.layout import MAX_QUEUE_SIZE, is_queue_size

TAG_BYTES = 36  # 5.11.4
MAX_REQUEST_QUEUES = MAX_QUEUES - 1
QUEUE_SIZE = 128  # QEMU's


def _tag(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not 1 <= len(value.encode()) <= TAG_BYTES or "\0" in value:
        raise ValueError(f"tag {value!r}: expected 1 to {TAG_BYTES} bytes")


def _queues(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 1 <= value <= MAX_REQUEST_QUEUES:
        raise ValueError(f"queues={value}: expected 1 to {MAX_REQUEST_QUEUES} request queues")


def _queue_size(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not is_queue_size(value):
        raise ValueError(f"queue_size={value}: expected a power of two up to {MAX_QUEUE_SIZE}")


@frozen(kw_only=True)
class FsConfig:
    """The options of one file system."""

    socket: Path = socket_option("Socket of virtiofsd.")
    tag: str = option(validator=_tag, help="Name by which the guest mounts it: mount -t virtiofs TAG FOLDER.")
    queues: int = option(default=1, validator=_queues, help="Number of request queues.")
    queue_size: int = option(default=QUEUE_SIZE, validator=_queue_size, help="Largest size of each queue.")
