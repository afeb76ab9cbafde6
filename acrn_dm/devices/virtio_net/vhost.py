"""virtio-net on the kernel's vhost-net: one node for each queue pair, and the pair's tap as its backend."""

import contextlib
from collections.abc import Sequence
from typing import cast

from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.devices.virtio_net.request import MRG_RXBUF
from acrn_dm.vhost.kernel import KernelVhost
from acrn_dm.vhost.kernel_node import VhostNode, VhostQueue


class NetVhost(KernelVhost):
    """Offloads are between the guest and the tap, so the kernel's say is in how frames lie in buffers, nothing else.

    Length of the packet header: the tap has it from the device, vhost from the same features (12 bytes with MRG_RXBUF
    or VERSION_1, else 10).
    """

    path = "/dev/vhost-net"
    resets_owner = True
    kernel_features = MRG_RXBUF

    @property
    def node_count(self) -> int:
        """One for each pair."""
        return cast(NetDevice, self.device).config.mq

    def run(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """Join each queue with the pair's descriptor of the tap."""
        taps = cast(NetDevice, self.device).taps
        for queue in queues:
            node.net_set_backend(queue.local, taps[queue.index // 2].fd)

    def halt(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """Part them, all of them even if one fails; the kernel waits for what is in flight."""
        with contextlib.ExitStack() as stack:
            for queue in reversed(queues):
                stack.callback(node.net_set_backend, queue.local, -1)
