"""The kernel's vhost-vsock, played: the nodes of ``FakeVhost`` with a host's end of sockets behind their rings."""

import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import acrn_dm_vsock

from acrn_dm import BackendType, hookimpl
from acrn_dm.testing import FakeNode, FakeVhost, SimMachine
from acrn_dm.testing.conformance import SLOT
from tests.testing.conformance.kinds.socket_host import PlayedHost, SocketDevice

FEATURES = sum(1 << bit for bit in (1, 27, 28, 29, 32))  # SEQPACKET, and the ring's
DEVICE = SimpleNamespace(__name__="device", acrn_dm_device_types=acrn_dm_vsock.acrn_dm_device_types)


class _Queue:
    """A ring of a node as the host's end works on it."""

    def __init__(self, index: int, ring: Any) -> None:
        self.index = index
        self._ring = ring

    def pop_batch(self, limit: int) -> Any:
        return self._ring.live.pop_batch(limit) if self._ring.live is not None else []

    def push(self, chain: Any, written: int | None = None) -> None:
        self._ring.live.push(*[chain] if written is None else [chain, written])

    def flush(self) -> None:
        if self._ring.live is not None and self._ring.live.publish() and "call" in self._ring.fds:
            os.eventfd_write(self._ring.fds["call"], 1)


class _Node(FakeNode):
    """A node whose two rings lead to one host's end."""

    def __init__(self, vhost: "SocketKernel", path: str) -> None:
        super().__init__(vhost, path)
        context: Any = SimpleNamespace(name="kernel")
        self.end = SocketDevice(context, vhost.host)

    def vsock_set_running(self, running: bool) -> None:
        super().vsock_set_running(running)
        if running:
            queues: Any = [_Queue(index, ring) for index, ring in self.rings.items()]
            self.end.start(7, queues)
            self._vhost.host.device = self.end  # type: ignore[attr-defined]
        else:
            self.end.stop()

    def _server(self, ring: Any) -> Callable[[], None]:
        def serve() -> None:
            index = next((i for i, known in self.rings.items() if known is ring), 0)
            queue: Any = _Queue(index, ring)
            while ring.live is not None:
                self.end.handle_queue(queue)
                queue.flush()
                if not ring.live.enable_kicks():
                    break

        return serve


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
