"""A file system (virtio 1.3, 5.11) whose requests another process serves: what the machine has in its place.

Queue 0 is for requests of high priority, the others for all. The configuration space is ours: virtiofsd has none.
"""

import struct
from collections.abc import Sequence

from acrn_dm.backends.opaque import OpaqueDevice
from acrn_dm.backends.user.terms import FOREIGN_BITS, AfterLoss, Terms
from acrn_dm.base.files.claims import Claim, socket_claim
from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices.virtio_fs.config import TAG_BYTES, FsConfig
from acrn_dm.virtio.placement import Placement, at_socket

NOTIFICATION = 1 << 0  # 5.11.3: there is a queue for notifications, which is not among ours
CONFIG = struct.Struct(f"<{TAG_BYTES}sI")  # tag, num_request_queues: 5.11.4


class FsDevice(OpaqueDevice):
    """One shared folder. Which one only virtiofsd knows."""

    backend_name = "vhost-user"
    device_id = 26
    pci_class = 0x018000  # QEMU's: mass storage, other

    def __init__(self, config: FsConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config

    @property
    def terms(self) -> Terms:
        """Requests are not done twice: nodes and open files are virtiofsd's, and go with it."""
        return Terms(
            device_id=self.device_id,
            theirs=FOREIGN_BITS & ~NOTIFICATION,
            remote_config=False,
            after_loss=AfterLoss.RESET,
            chosen_queues=self.config.queues > 1,
        )

    @property
    def queue_sizes(self) -> Sequence[int]:
        """One of high priority, and those for requests (5.11.2)."""
        return (self.config.queue_size,) * (1 + self.config.queues)

    @property
    def config_size(self) -> int:
        """5.11.4, without what goes with NOTIFICATION."""
        return CONFIG.size

    @property
    def placement(self) -> Placement:
        """virtiofsd."""
        return at_socket(self.config.socket)

    def claims(self) -> Sequence[Claim]:
        """Its socket."""
        return [socket_claim(self.config.socket)]

    def read_config(self, offset: int, size: int) -> bytes:
        """The tag, and how many queues there are for requests."""
        return CONFIG.pack(self.config.tag.encode(), self.config.queues)[offset : offset + size]
