"""One open vhost device and the queues it serves: the order of the ioctls.

::

    open, GET_FEATURES, [configure]                                            until close
      SET_OWNER, SET_FEATURES, SET_MEM_TABLE                                   at DRIVER_OK
        VRING_NUM, VRING_BASE, VRING_ADDR, VRING_CALL, VRING_ERR, VRING_KICK   each queue
        [run]                                                                  the data plane is the kernel's
        [halt]                                                                 at reset
        GET_VRING_BASE, VRING_KICK -1, VRING_CALL -1, VRING_ERR -1             each queue
      RESET_OWNER, or close and open

The owner is given up at each stop, whatever went wrong before, so that every start begins with the same state: a node
without owner, memory and eventfds.
"""

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from acrn_dm._fastring import MemoryMap
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import frozen
from acrn_dm.pci.eventfds import make_eventfd
from acrn_dm.ring.position import RingPosition
from acrn_dm.virtio.backend import Session, SessionQueue

log = logging.getLogger(__name__)


class VhostNode(Protocol):
    """``_vhost.NodeFile``, as far as it is used here."""

    @property
    def path(self) -> str: ...
    def close(self) -> None: ...
    def get_features(self) -> int: ...
    def set_features(self, features: int) -> None: ...
    def set_owner(self) -> None: ...
    def reset_owner(self) -> None: ...
    def set_mem_table(self, memory: MemoryMap) -> None: ...
    def set_vring_num(self, index: int, num: int) -> None: ...
    def set_vring_base(self, index: int, base: int) -> None: ...
    def get_vring_base(self, index: int) -> int: ...
    def set_vring_addr(self, index: int, memory: MemoryMap, desc: int, avail: int, used: int) -> None: ...
    def set_vring_kick(self, index: int, fd: int) -> None: ...
    def set_vring_call(self, index: int, fd: int) -> None: ...
    def set_vring_err(self, index: int, fd: int) -> None: ...
    def net_set_backend(self, index: int, fd: int) -> None: ...
    def vsock_set_guest_cid(self, cid: int) -> None: ...
    def vsock_set_running(self, running: bool) -> None: ...


@frozen(kw_only=True, eq=False)
class VhostQueue:
    """A queue while the kernel serves it: *index* is its number in the device, *local* in the node."""

    index: int
    local: int
    size: int
    err_fd: int
    loop: IoLoop = attrs.field(repr=False)

    def close(self) -> None:
        """Forget the error eventfd."""
        self.loop.remove(self.err_fd)
        os.close(self.err_fd)


class Work(Protocol):
    """The calls that differ between the kinds of vhost devices."""

    def configure(self, node: VhostNode) -> None:
        """A node was opened; tell it what it keeps until it is closed. Raises HostError."""

    def run(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """The rings are set: let the kernel move data. Raises HostError."""

    def halt(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        """Stop, and wait until nothing moves; *queues* may have failed to run. Raises HostError."""

    def broken(self, queue: VhostQueue) -> None:
        """The kernel can't go on with *queue*. On an I/O loop."""


class KernelNode:
    """One open node. Control threads only, under the function's lock."""

    def __init__(self, open_node: Callable[[], VhostNode], work: Work, *, resets_owner: bool) -> None:
        self._open_node = open_node
        self._work = work
        self._resets_owner = resets_owner
        self._node: VhostNode | None = None
        self._features = 0
        self._owned = False
        self._ran = False  # or may run: run() was called
        self._queues: list[VhostQueue] = []

    def open(self) -> int:
        """Open the node unless it is open; return the kernel's feature bits. Raises HostError."""
        if self._node is None:
            node = self._open_node()
            try:
                self._features = node.get_features()
                self._work.configure(node)
            except HostError:
                node.close()
                raise
            self._node = node
        return self._features

    def start(self, session: Session, features: int, first: int) -> None:
        """Hand over the queues of *session*; the node's own numbers count from *first*. Raises HostError; then
        ``stop`` cleans up.
        """
        self.open()
        node = self._node
        assert node is not None
        node.set_owner()
        self._owned = True
        node.set_features(features)
        node.set_mem_table(session.resources.memory.map)
        for queue in session.queues:
            self._start_queue(node, session, queue, queue.index - first)
        self._ran = True
        self._work.run(node, self._queues)

    @property
    def running(self) -> bool:
        """Whether the kernel serves queues."""
        return self._ran

    def stop_queue(self, index: int) -> None:
        """Stop the device's queue *index* alone and forget its ring. Raises HostError; then ``stop`` cleans up."""
        node = self._node
        assert node is not None
        queue = next(queue for queue in self._queues if queue.index == index)
        self._work.halt(node, [queue])
        for take in (node.set_vring_kick, node.set_vring_call, node.set_vring_err):
            take(queue.local, -1)
        self._queues.remove(queue)
        queue.close()

    def start_queue(self, session: Session, queue: SessionQueue, first: int) -> None:
        """Hand over *queue* beside those that run; numbers as in ``start``. Raises HostError; then ``stop`` cleans
        up.
        """
        node = self._node
        assert node is not None
        self._start_queue(node, session, queue, queue.index - first)
        self._work.run(node, self._queues[-1:])

    def stop(self) -> Mapping[int, RingPosition]:
        """Leave nothing behind; return where each queue was that ran. Idempotent; does not raise."""
        positions: dict[int, RingPosition] = {}
        node = self._node
        if node is not None and self._ran:
            self._try("stopping", lambda: self._work.halt(node, self._queues))
            for queue in self._queues:
                self._try("stopping", functools.partial(self._note_position, node, queue, positions))
        if node is not None and self._owned:
            for queue in self._queues:
                for take in (node.set_vring_kick, node.set_vring_call, node.set_vring_err):
                    self._try("stopping", functools.partial(take, queue.local, -1))
        self._ran = False
        for queue in self._queues:
            queue.close()
        self._queues.clear()
        self._disown()
        return positions

    def close(self) -> None:
        """Close the node. Idempotent."""
        node, self._node = self._node, None
        self._owned = False
        if node is not None:
            node.close()

    def _start_queue(self, node: VhostNode, session: Session, queue: SessionQueue, local: int) -> None:
        loop = session.resources.io_loop("io")
        err_fd = make_eventfd()
        ours = VhostQueue(index=queue.index, local=local, size=queue.size, err_fd=err_fd, loop=loop)
        self._queues.append(ours)
        loop.add(err_fd, lambda: self._work.broken(ours), eventfd=True)
        node.set_vring_num(local, queue.size)
        node.set_vring_base(local, queue.position.base)
        node.set_vring_addr(local, session.resources.memory.map, queue.desc, queue.avail, queue.used)
        node.set_vring_call(local, queue.call.fd)
        node.set_vring_err(local, err_fd)
        node.set_vring_kick(local, queue.kick.fd)

    @staticmethod
    def _note_position(node: VhostNode, queue: VhostQueue, positions: dict[int, RingPosition]) -> None:
        positions[queue.index] = RingPosition(node.get_vring_base(queue.local))

    def _disown(self) -> None:
        """Give up the owner: by its ioctl where the driver knows it, else with the node."""
        node = self._node
        if node is None or not self._owned:
            return
        self._owned = False
        if self._resets_owner and self._try("resetting", node.reset_owner):
            return
        self.close()
        self._try("opening again", self.open)  # now, because others may want our cid; if it fails, start tries again

    def _try(self, doing: str, step: Callable[[], object]) -> bool:
        try:
            step()
        except HostError as e:
            log.warning("%s %s: %s", doing, self._node.path if self._node is not None else "vhost", e)
            return False
        return True
