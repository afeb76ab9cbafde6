"""Kernel vhost: ``/dev/vhost-*`` moves the data, this process keeps registers, configuration and control queues.

Derive from ``KernelVhost`` for a kind of device: name the node, say which features the kernel has a say in, and how it
is run and halted. What the guest is offered is what both the device and the kernel have; a kernel may have bits that
are none of a guest's business, so it gets back only bits that were offered.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import attrs

from acrn_dm.backends.kernel._vhost import LOG_ALL, NET_HEADER, NodeFile
from acrn_dm.backends.kernel.node import KernelNode, VhostNode, VhostQueue
from acrn_dm.backends.proxy import Proxy
from acrn_dm.base.errors import GuestError, HostError
from acrn_dm.base.sandbox.needs import VHOST, Needs
from acrn_dm.contract.resources import Resources
from acrn_dm.ring.position import RingPosition
from acrn_dm.virtio import features
from acrn_dm.virtio.backend import Session, SessionQueue
from acrn_dm.virtio.device import VirtioDevice

PRIVATE = LOG_ALL | NET_HEADER  # what they mean is between us and the kernel; to a guest, the second is ANY_LAYOUT


class KernelVhost(Proxy):
    """The backend of one device on kernel vhost. ``open_node`` makes the ioctls; a test gives another."""

    path: ClassVar[str]  # of the node
    resets_owner: ClassVar[bool] = False  # its driver knows VHOST_RESET_OWNER; others are closed and opened again
    stops_one_queue: ClassVar[bool] = (
        False  # ``halt`` and ``run`` take some of a node's queues, and leave the others alone
    )
    queues_per_node: ClassVar[int] = 2
    kernel_features: ClassVar[int] = 0  # device features that are the kernel's, beside the ring's

    def __init__(self, device: VirtioDevice, open_node: Callable[[str], VhostNode] = NodeFile) -> None:
        super().__init__(device)
        self._nodes = [
            KernelNode(lambda: open_node(self.path), self, resets_owner=self.resets_owner)
            for _ in range(self.node_count)
        ]
        self._kernel = 0

    @classmethod
    def problem(cls) -> str | None:
        """Why the node can't be used, as one line; opens nothing."""
        if not Path(cls.path).exists():
            return f"{cls.path} does not exist; load {Path(cls.path).name.replace('-', '_')}"
        return None if os.access(cls.path, os.R_OK | os.W_OK) else f"{cls.path} is not accessible"

    def sandbox_needs(self) -> Needs:
        """Its ioctls, and the node, where that is opened again for each driver."""
        return Needs(groups=[VHOST], writes=() if self.resets_owner else [Path(self.path)])

    @property
    def node_count(self) -> int:
        """Nodes to open: each serves ``queues_per_node`` queues, in order."""
        return 1

    def realize(self, resources: Resources) -> None:
        """Open the nodes. Raises HostError."""
        found = [node.open() for node in self._nodes]
        self._kernel = found[0] & ~PRIVATE
        if not self._kernel & features.VERSION_1:
            raise HostError(f"{self.path}: this kernel's vhost does not know virtio 1.0")

    def offer(self, offered: int) -> int:
        """What the kernel has to do it must be able to do."""
        if not self.stops_one_queue:
            offered &= ~features.RING_RESET
        return offered & (self._kernel | ~self._say) & ~LOG_ALL

    def start_remote(self, session: Session) -> None:
        """Each node gets the enabled ones of its queues; none of them, and it stays as it is."""
        negotiated = session.features & self._say & self._kernel
        for i, node in enumerate(self._nodes):
            first = i * self.queues_per_node
            own = tuple(q for q in session.queues if first <= q.index < first + self.queues_per_node)
            if own:
                node.start(attrs.evolve(session, queues=own), negotiated, first)

    def stop_remote(self) -> Mapping[int, RingPosition]:
        """See Proxy."""
        positions: dict[int, RingPosition] = {}
        for node in self._nodes:
            positions |= node.stop()
        return positions

    def reset_remote(self, index: int) -> bool:
        """The node waits for what is in flight."""
        if not self.stops_one_queue:
            return False
        self._nodes[index // self.queues_per_node].stop_queue(index)
        return True

    def enable_remote(self, session: Session, queue: SessionQueue) -> bool:
        """One queue more for its node, which may have had none."""
        node = self._nodes[index] if (index := queue.index // self.queues_per_node) < len(self._nodes) else None
        if not self.stops_one_queue or node is None or not node.running:
            return False
        node.start_queue(session, queue, index * self.queues_per_node)
        return True

    def close(self) -> None:
        """Close the nodes."""
        for node in self._nodes:
            node.close()

    @property
    def _say(self) -> int:
        return (features.RING_BITS & ~features.OFFERED_BY_PCI | self.kernel_features) & ~PRIVATE

    # Work: to be overridden.

    def configure(self, node: VhostNode) -> None:
        """A node was opened; tell it what it keeps until it is closed. Raises HostError."""

    def run(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """The rings of *node* are set: let the kernel move data. Raises HostError."""
        raise NotImplementedError  # every backend has its own

    def halt(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """Stop, and wait until nothing moves; *queues* may have failed to run. Raises HostError."""
        raise NotImplementedError  # every backend has its own

    def broken(self, queue: VhostQueue) -> None:
        """The kernel found a ring that it can't use (VHOST_SET_VRING_ERR): the driver has to reset."""
        self.device.fail(GuestError(f"queue {queue.index}: the kernel reports a malformed ring or buffer"))
