"""A network card on a played vhost-net: its tap is one end of a socket pair that nobody reads."""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import BackendType, DeviceType
from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.devices.virtio_net.vhost import NetVhost
from acrn_dm.testing import FakeVhost, SimMachine, VirtioDriver

SLOT = 3


class QuietTap(PacketFile):
    """Remembers what it is told."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, True)
        self.settings: list[tuple[int, int]] = []
        self.attached = True
        self.fail_next = 0

    def configure(self, *, header_bytes: int, offloads: int) -> None:
        self._maybe_fail()
        self.settings.append((header_bytes, offloads))

    def attach(self, attached: bool) -> None:
        self._maybe_fail()
        self.attached = attached

    def _maybe_fail(self) -> None:
        err, self.fail_next = self.fail_next, 0
        if err:
            raise HostError("the tap", err=err)


class NetKernel(FakeVhost):
    """vhost-net; *reason* is why it looks unusable before anything is opened."""

    reason: str | None = None

    @hookimpl
    def acrn_dm_backend_types(self) -> Iterable[BackendType]:
        def make(device: NetDevice) -> NetVhost:
            return NetVhost(device, self.open)

        kinds = {"virtio-net"}
        return [BackendType(name="vhost", summary="", kinds=kinds, create=make, probe=lambda: self.reason)]


@attrs.define(eq=False)
class VhostCard:
    """The machine, the card and the kernel it is on."""

    machine: SimMachine
    kernel: NetKernel
    device: NetDevice
    driver: VirtioDriver
    taps: list[QuietTap]

    def echo(self, queue: int = 1) -> bytes:
        """Send a chain that the played kernel answers."""
        return self.driver.queue(queue).transfer([b"ab"], [2]).data

    @property
    def nothing_is_left(self) -> bool:
        """No registration, no owner, no descriptor in the kernel."""
        bindings = self.machine.vm.kicks.bindings + self.machine.vm.interrupts.bindings
        return not bindings and all(not node.owned and not node.rings for node in self.kernel.nodes)


@contextmanager
def vhost_card(
    options: str = "tap=t0,vhost", kernel: NetKernel | None = None, **machine: object
) -> Iterator[VhostCard]:
    """A card in slot 3, not yet driven; the log of the kernel is empty."""
    kernel = kernel or NetKernel()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    taps: list[QuietTap] = []

    def open_tap(name: str) -> QuietTap:
        taps.append(QuietTap(os.dup(near.fileno())))
        return taps[-1]

    net = DeviceType(
        name="virtio-net",
        summary="",
        config=NetConfig,
        create=lambda config, context: NetDevice(config, context, open_tap),
    )
    with near, far, SimMachine(plugins=[kernel], **machine) as m:  # type: ignore[arg-type]
        kernel.join(m)
        function = m.add(net, options, slot=SLOT)
        driver = m.driver(SLOT)
        kernel.take_log()
        yield VhostCard(m, kernel, function.device, driver, taps)  # type: ignore[attr-defined]


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))
