"""The kernel's vhost-vsock, played: the nodes of ``FakeVhost`` with a host's end of sockets behind their rings."""

import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import acrn_dm_vsock

from acrn_dm import BackendType, GuestError, hookimpl
from acrn_dm.testing import FakeNode, FakeVhost, SimMachine
from acrn_dm.testing.conformance import SLOT
from acrn_dm.testing.conformance.kinds.vsock import flow
from tests.testing.conformance.kinds.socket_host import CID, PlayedHost, SocketDevice

MOST = 64 << 10  # VIRTIO_VSOCK_MAX_PKT_BUF_SIZE
FEATURES = sum(1 << bit for bit in (1, 27, 28, 29, 32))  # SEQPACKET, and the ring's
DEVICE = SimpleNamespace(__name__="device", acrn_dm_device_types=acrn_dm_vsock.acrn_dm_device_types)


class _Queue:
    """A ring of a node as the host's end works on it: it sees what the kernel would have it see."""

    def __init__(self, index: int, ring: Any, complain: Callable[[], None]) -> None:
        self.index = index
        self._ring = ring
        self._complain = complain

    def pop_batch(self, limit: int) -> Any:
        """One chain that the kernel can use. Another one it keeps, and says so (``vq_err`` in vhost/vsock.c)."""
        while self._ring.live is not None:
            chains = self._pop()
            if not chains or self._usable(chains[0]):
                return chains
            self._complain()
            if self.index == flow.RX:
                break
        return []

    def push(self, chain: Any, written: int | None = None) -> None:
        self._ring.live.push(*[chain] if written is None else [chain, written])

    def flush(self) -> None:
        if self._ring.live is not None and self._ring.live.publish() and "call" in self._ring.fds:
            os.eventfd_write(self._ring.fds["call"], 1)

    def _pop(self) -> Any:
        try:
            return self._ring.live.pop_batch(1)
        except GuestError:
            self._complain()
            return []

    def _usable(self, chain: Any) -> bool:
        header = flow.HEADER.size
        if self.index == flow.RX:
            return not chain.readable_bytes and chain.writable_bytes >= header
        if chain.writable_bytes or not header <= chain.readable_bytes <= header + MOST:
            return False
        head = b"".join(bytes(part) for part in chain.readable(0, header))
        return int.from_bytes(head[24:28], "little") <= chain.readable_bytes - header


class _End(SocketDevice):
    """The host's end behind a node: packets with other addresses than the two it has don't reach it."""

    def take(self, packet: flow.Packet) -> None:
        if (packet.src_cid, packet.dst_cid) == (CID, flow.HOST_CID):
            super().take(packet)


class _Node(FakeNode):
    """A node whose two rings lead to one host's end."""

    def __init__(self, vhost: "SocketKernel", path: str) -> None:
        super().__init__(vhost, path)
        context: Any = SimpleNamespace(name="kernel")
        self.end = _End(context, vhost.host)

    def vsock_set_running(self, running: bool) -> None:
        super().vsock_set_running(running)
        if running:
            queues: Any = [self._queue(ring) for ring in self.rings.values()]
            self.end.start(7, queues)
            self._vhost.host.device = self.end  # type: ignore[attr-defined]
        else:
            self.end.stop()

    def _serve(self, ring: Any, live: Any) -> None:
        self.end.handle_queue(self._queue(ring))

    def _queue(self, ring: Any) -> Any:
        index = next(i for i, known in self.rings.items() if known is ring)
        return _Queue(index, ring, lambda: self._complain(ring))


class SocketKernel(FakeVhost):
    """All nodes, for one machine."""

    def __init__(self, host: PlayedHost) -> None:
        super().__init__(features=FEATURES, resets_owner=False)
        self.host = host

    def open(self, path: str) -> FakeNode:
        self.call(f"open {path}")
        self.nodes.append(_Node(self, path))
        return self.nodes[-1]


class PackagedHost(PlayedHost):
    """The package's device on that kernel: its builder, and the plugin that brings the backend."""

    __name__ = "socket-kernel"

    def __init__(self) -> None:
        super().__init__()
        self.kernel = SocketKernel(self)

    def build(self, machine: SimMachine) -> None:
        self.listening, self.accepted = {}, {}
        self.kernel = SocketKernel(self)
        self.kernel.join(machine)
        machine.add("vhost-vsock", "cid=42", slot=SLOT)

    @hookimpl
    def acrn_dm_backend_types(self) -> Sequence[BackendType]:
        def make(device: acrn_dm_vsock.VsockDevice) -> acrn_dm_vsock.VsockVhost:
            return acrn_dm_vsock.VsockVhost(device, self.kernel.open)

        return [BackendType(name="vhost", summary="", kinds={"vhost-vsock"}, create=make)]
