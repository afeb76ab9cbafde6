"""vhost-vsock: sockets between guest and host (virtio 5.10), on the kernel's vhost-vsock.

Queues 0 and 1 (to the guest, from it) are the kernel's. Queue 2 is for events, of which there are none without
migration: its buffers wait here.
"""

from collections.abc import Collection, Sequence
from typing import cast

import attrs

from acrn_dm import (
    BackendType,
    Claim,
    DeviceContext,
    DeviceType,
    GuestError,
    KernelVhost,
    Queue,
    VhostNode,
    VhostQueue,
    VirtioDevice,
    hookimpl,
    option,
)

STREAM, SEQPACKET, NO_IMPLIED_STREAM = 1 << 0, 1 << 1, 1 << 2  # 5.10.3
QUEUE_SIZE = 128
EVENT_QUEUE = 2
CID_BYTES = 8  # struct virtio_vsock_config: le64 guest_cid
CID_LIMITS = (3, 0xFFFF_FFFE)  # below and above are reserved (5.10.4)


def _cid(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    low, high = CID_LIMITS
    if not low <= value <= high:
        raise ValueError(f"cid {value}: expected {low} to {high}")


@attrs.frozen(kw_only=True)
class VsockConfig:
    """Options."""

    cid: int = option(validator=_cid, help="The guest's address; no other virtual machine may have it.")


class VsockDevice(VirtioDevice):
    """Everything but the data."""

    device_id = 19
    pci_class = 0x078000

    def __init__(self, config: VsockConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config

    @property
    def features(self) -> int:
        """Streams, which every kernel has and none has a bit for, and sequenced packets, where the kernel has them.

        With NO_IMPLIED_STREAM a driver can leave streams out. It is the driver's word not to open any: the kernel can't
        be told.
        """
        return STREAM | SEQPACKET | NO_IMPLIED_STREAM

    @property
    def queue_sizes(self) -> Sequence[int]:
        """To the guest, from the guest, events."""
        return (QUEUE_SIZE,) * 3

    @property
    def config_size(self) -> int:
        """5.10.4."""
        return CID_BYTES

    @property
    def backend_name(self) -> str:
        """There is no other."""
        return "vhost"

    @property
    def backend_text(self) -> str:
        """The address."""
        return f"vhost cid {self.config.cid}"

    def claims(self) -> Sequence[Claim]:
        """The address."""
        return [Claim(key=("vsock", self.config.cid), what=f"cid {self.config.cid}")]

    def local_queues(self, features: int) -> Collection[int]:
        """Events."""
        return (EVENT_QUEUE,)

    def read_config(self, offset: int, size: int) -> bytes:
        """5.10.4."""
        return self.config.cid.to_bytes(CID_BYTES, "little")[offset : offset + size]

    def handle_queue(self, queue: Queue) -> None:
        """No event will come: the buffers stay where they are."""


class VsockVhost(KernelVhost):
    """The kernel's part. It does not know RESET_OWNER, so the base class opens it again for each driver."""

    path = "/dev/vhost-vsock"
    kernel_features = SEQPACKET

    def configure(self, node: VhostNode) -> None:
        """Take the address."""
        node.vsock_set_guest_cid(cast(VsockDevice, self.device).config.cid)

    def run(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """Both queues at once; a driver that set up one of them has to do it again."""
        if len(queues) < EVENT_QUEUE:
            ready = ", ".join(str(queue.index) for queue in queues)
            raise GuestError(f"the kernel serves queues 0 and 1 together, and the driver enabled only {ready}")
        node.vsock_set_running(True)

    def halt(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """Both queues at once."""
        node.vsock_set_running(False)


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``vhost-vsock``."""
    summary = "sockets between guest and host"
    return [DeviceType(name="vhost-vsock", summary=summary, config=VsockConfig, create=VsockDevice)]


@hookimpl
def acrn_dm_backend_types() -> Sequence[BackendType]:
    """Offer its only backend."""
    summary = "in the kernel (vhost-vsock)"
    kinds = {"vhost-vsock"}
    return [BackendType(name="vhost", summary=summary, kinds=kinds, create=VsockVhost, probe=VsockVhost.problem)]
