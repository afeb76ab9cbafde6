"""A virtio device of any kind that another process is: what the machine has in its place."""

from collections.abc import Sequence

from acrn_dm.backends.opaque import OpaqueDevice
from acrn_dm.backends.user.terms import FOREIGN_BITS, Terms
from acrn_dm.base.files.claims import Claim, socket_claim
from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices.vhost_user.config import ForeignConfig
from acrn_dm.devices.vhost_user.kinds import after_loss
from acrn_dm.virtio.placement import Placement, at_socket


class ForeignDevice(OpaqueDevice):
    """The device whose kind and layout its options tell, and whose process tells all else."""

    backend_name = "vhost-user"
    device_id = 0  # each instance has its own

    def __init__(self, config: ForeignConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config
        self.device_id = config.id
        self.pci_class = config.class_code

    @property
    def terms(self) -> Terms:
        """All is the process's, and requests of a kind that is not known are not repeated."""
        return Terms(device_id=self.device_id, theirs=FOREIGN_BITS, after_loss=after_loss(self.device_id))

    @property
    def queue_sizes(self) -> Sequence[int]:
        """As the options say."""
        return (self.config.queue_size,) * self.config.queues

    @property
    def config_size(self) -> int:
        """As the options say."""
        return self.config.config

    @property
    def placement(self) -> Placement:
        """The process."""
        return at_socket(self.config.socket)

    def claims(self) -> Sequence[Claim]:
        """The process's socket."""
        return [socket_claim(self.config.socket)]
