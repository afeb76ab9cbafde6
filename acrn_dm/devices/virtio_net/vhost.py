"""virtio-net on the kernel's vhost-net: one node for each queue pair, and the pair's tap as its backend.

The receive queue of a pair that rests has no backend: the kernel reads frames from a tap in advance, and what it has
read would reach the driver after its VQ_PAIRS_SET (5.1.6.5.5). Taking the backend away gives them back to the tap.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import cast

from acrn_dm.backends.kernel._vhost import NodeFile
from acrn_dm.backends.kernel.backend import KernelVhost
from acrn_dm.backends.kernel.node import VhostNode, VhostQueue
from acrn_dm.base.errors import HostError
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.devices.virtio_net.request import COALESCING, FILTERS, HASH_REPORT, MRG_RXBUF, RSS
from acrn_dm.virtio.backend import Session, SessionQueue
from acrn_dm.virtio.device import VirtioDevice


class NetVhost(KernelVhost):
    """The card on vhost-net. Offloads are between the guest and the tap, so the kernel's say is in how frames lie in
    buffers, nothing else.

    Length of the packet header: the tap has it from the device, vhost from the same features (12 bytes with MRG_RXBUF
    or VERSION_1, else 10).
    """

    path = "/dev/vhost-net"
    resets_owner = True
    stops_one_queue = True
    kernel_features = MRG_RXBUF

    def __init__(self, device: VirtioDevice, open_node: Callable[[str], VhostNode] = NodeFile) -> None:
        super().__init__(device, open_node)
        self._lock = threading.Lock()  # control threads run and halt, the control queue's loop switches
        self._receivers: dict[int, tuple[VhostNode, VhostQueue]] = {}  # receive queues that run, by index

    @property
    def node_count(self) -> int:
        """One for each pair."""
        return cast(NetDevice, self.device).config.mq

    def offer(self, offered: int) -> int:
        """Without filters: the kernel hands on every frame of the tap. It interrupts when it likes, too."""
        return super().offer(offered) & ~(FILTERS | COALESCING | RSS | HASH_REPORT)

    def run(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """Join each queue with the pair's descriptor of the tap."""
        with self._lock:
            self._receivers |= {queue.index: (node, queue) for queue in queues if queue.index % 2 == 0}
            for queue in queues:
                self._join(node, queue)

    def halt(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """Part them, all of them even if one fails; the kernel waits for what is in flight."""
        with self._lock, contextlib.ExitStack() as stack:
            for queue in reversed(queues):
                self._receivers.pop(queue.index, None)
                stack.callback(node.net_set_backend, queue.local, -1)

    def reset_remote(self, index: int) -> bool:
        """The tap hands no frames to a pair that has no receive queue."""
        super().reset_remote(index)
        if index % 2 == 0:
            cast(NetDevice, self.device).receives(index // 2, False)
        return True

    def enable_remote(self, session: Session, queue: SessionQueue) -> bool:
        """And does so again."""
        enabled = super().enable_remote(session, queue)
        if queue.index % 2 == 0:
            cast(NetDevice, self.device).receives(queue.index // 2, True)
        return enabled

    def queues_changed(self, done: Callable[[], None]) -> None:
        """See the module. What can't be switched any more costs the driver a reset."""
        with self._lock:
            try:
                for node, queue in self._receivers.values():
                    self._join(node, queue)
            except HostError as e:
                self.device.fail(e)
        done()

    def _join(self, node: VhostNode, queue: VhostQueue) -> None:
        device = cast(NetDevice, self.device)
        rests = queue.index % 2 == 0 and not device.wants_queue(queue.index)
        node.net_set_backend(queue.local, -1 if rests else device.taps[queue.index // 2].fd)
