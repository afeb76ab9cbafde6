"""Devices with one trait each, and a machine around them."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence

from acrn_dm._fastring import Chain
from acrn_dm.backends.kernel.backend import KernelVhost
from acrn_dm.backends.kernel.node import VhostNode, VhostQueue
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import BackendType, DeviceContext
from acrn_dm.pci.eventfds import CallEvent
from acrn_dm.testing import FakeVhost, SimMachine
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.queue import Queue

SLOT = 3
COMMON_BAR, NOTIFY_BAR_OFFSET = 4, 0x3000


class Echo(VirtioDevice):
    """Returns what it reads, backwards. A block device's id gives it features with dependencies to play with."""

    device_id = 2
    pci_class = 0x010000
    transitional = True
    offers = 1 << 5 | 1 << 9
    sizes: Sequence[int] = (64, 16)
    config = bytes(range(1, 13))

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        self.calls: list[str] = []
        self.started_with = 0
        self.queues: Sequence[Queue] = ()
        self.written: list[tuple[int, bytes]] = []

    @property
    def features(self) -> int:
        return self.offers

    @property
    def queue_sizes(self) -> Sequence[int]:
        return self.sizes

    @property
    def config_size(self) -> int:
        return len(self.config)

    def read_config(self, offset: int, size: int) -> bytes:
        return self.config[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        self.written.append((offset, data))

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        self.calls.append("start")
        self.started_with, self.queues = features, queues

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            chain.write(chain.read(4096)[::-1])
            queue.push(chain)

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


class ModernOnly(Echo):
    """A device type that never had a legacy form."""

    device_id = 18
    transitional = False
    offers = 0


class NoConfig(Echo):
    """An entropy device: no configuration space, no feature bits."""

    device_id = 4
    offers = 0
    config = b""


class Holding(Echo):
    """Keeps every chain until told."""

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        self.held: list[tuple[Queue, Chain]] = []

    def handle_queue(self, queue: Queue) -> None:
        self.held += [(queue, chain) for chain in queue.pop_batch()]

    def complete(self, data: bytes = b"done") -> None:
        """As a helper thread's work coming back: on the queue's loop."""
        held, self.held = self.held, []
        for queue, chain in held:
            queue.loop.call_soon(lambda q=queue, c=chain: self._complete(q, c, data))  # type: ignore[misc]

    def _complete(self, queue: Queue, chain: Chain, data: bytes) -> None:
        if not queue.closed:
            chain.write(data)
        queue.push(chain)
        queue.flush()


class EchoVhost(KernelVhost):
    """The kernel's echo; a tap it has not."""

    path = "/dev/vhost-echo"
    resets_owner = True
    stops_one_queue = True

    def run(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        for queue in queues:
            node.net_set_backend(queue.local, 0)

    def halt(self, node: VhostNode, queues: Sequence[VhostQueue]) -> None:
        for queue in queues:
            node.net_set_backend(queue.local, -1)


class EchoKernel(FakeVhost):
    """Offers ``vhost`` for every device."""

    @hookimpl
    def acrn_dm_backend_types(self) -> Iterable[BackendType]:
        make = functools.partial(EchoVhost, open_node=self.open)
        return [BackendType(name="vhost", summary="", kinds={"*"}, create=make)]


def machine_with(
    make: Callable[[DeviceContext], VirtioDevice] = Echo, *, backend: str = "vbs-u", **options: object
) -> SimMachine:
    """A machine with one device in slot 3; with *backend* ``vhost`` another does its work, by two eventfds a queue."""
    plugins: Sequence[object] = options.pop("plugins", ())  # type: ignore[assignment]
    kernel = EchoKernel()
    machine = SimMachine(plugins=[*plugins, kernel] if backend == "vhost" else plugins, **options)  # type: ignore[arg-type]
    if backend == "vhost":
        kernel.join(machine)
        make = _on_vhost(make)
    machine.add(make, slot=SLOT)
    return machine


def _on_vhost(make: Callable[[DeviceContext], VirtioDevice]) -> Callable[[DeviceContext], VirtioDevice]:
    assert isinstance(make, type)
    return type("Vhost" + make.__name__, (make,), {"backend_name": "vhost", "handle_queue": _must_not_serve})


def _must_not_serve(self: object, queue: Queue) -> None:
    raise AssertionError("two process one ring")


def device_of(machine: SimMachine) -> Echo:
    """The device under test."""
    device: Echo = machine.bus.functions[0].device  # type: ignore[attr-defined]
    return device


def call_of(machine: SimMachine, queue: int) -> Callable[[], object]:
    """What whoever serves *queue* calls to interrupt the driver; also works, without effect, after a reset."""
    plane = machine.bus.functions[0].data_plane  # type: ignore[attr-defined]
    event: CallEvent = plane._events[queue].call
    if not plane.backend.polls:
        fd = os.dup(event.fd)
        return lambda: os.eventfd_write(fd, 1)
    return event.signal
