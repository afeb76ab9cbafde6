"""A machine with one network card, whose tap is one end of a socket pair; the test holds the other end."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs

from acrn_dm.contract.types import DeviceContext, DeviceType
from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import PACKED, Completion, DriverQueue

RX, TX = 0, 1
CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN = 1, 1 << 1, 1 << 7, 1 << 8, 1 << 9
HOST_TSO4, HOST_TSO6, HOST_ECN, MRG_RXBUF, STATUS = 1 << 11, 1 << 12, 1 << 13, 1 << 15, 1 << 16
NEEDS_CSUM, DATA_VALID = 1, 2
TCPV4, TCPV6, ECN = 1, 4, 0x80


def vnet(flags: int = 0, gso: int = 0, hdr_len: int = 0, gso_size: int = 0, start: int = 0, offset: int = 0) -> bytes:  # noqa: PLR0917
    """struct virtio_net_hdr without num_buffers."""
    return struct.pack("<BBHHHH", flags, gso, hdr_len, gso_size, start, offset)


PLAIN = vnet() + bytes(2)
WAY: dict[str, bool] = {}  # what ``card`` does when its caller does not say


def frame(payload: bytes = b"", size: int = 60) -> bytes:
    """An Ethernet frame of the local experimental type."""
    return (b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + payload).ljust(size, b".")


class FakeTap(PacketFile):
    """One end of a socket pair; notes what it is told about headers."""

    def __init__(self, fd: int, vnet_header: bool) -> None:
        super().__init__(fd, vnet_header)
        self.settings: list[tuple[int, int]] = []

    def configure(self, *, header_bytes: int, offloads: int) -> None:
        self.settings.append((header_bytes, offloads))


def looped_tap(vnet_header: bool) -> FakeTap:
    """A tap whose network nobody listens to; frames are kept by the kernel as far as it likes and then dropped."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far.close()
    near.setblocking(False)
    return FakeTap(near.detach(), vnet_header)


@attrs.define(eq=False)
class Card:
    """The machine, the device, its driver, and of each pair the tap and the peer's socket."""

    machine: SimMachine
    device: NetDevice
    driver: VirtioDriver
    peers: list[socket.socket]
    taps: list[FakeTap]

    @property
    def peer(self) -> socket.socket:
        return self.peers[0]

    @property
    def tap(self) -> FakeTap:
        return self.taps[0]

    @property
    def rx(self) -> DriverQueue:
        return self.driver.queue(RX)

    @property
    def tx(self) -> DriverQueue:
        return self.driver.queue(TX)

    def post(self, *sizes: int) -> None:
        """Give receive buffers, one chain each."""
        for size in sizes:
            self.rx.send([], [size])
        self.rx.kick()
        self.machine.settle()

    def inject(self, *frames: bytes) -> list[Completion]:
        """Frames arrive, with their packet headers if the tap has any; returns what the driver gets."""
        for data in frames:
            self.peer.send(data)
        self.machine.settle()
        return self.rx.completed()

    def sent(self) -> list[bytes]:
        """Frames that left since the last call."""
        frames = []
        while True:
            try:
                frames.append(self.peer.recv(1 << 17))
            except BlockingIOError:
                return frames


def _add(machine: SimMachine, create: Callable[[NetConfig, DeviceContext], NetDevice], text: str, threads: int) -> Any:
    if threads:
        kind = DeviceType(name="net", summary="", config=NetConfig, create=create)
        return machine.add(kind, f"{text},iothread={threads}", slot=3)
    return machine.add(lambda context: create(NetConfig.from_string(text), context), slot=3)


@contextmanager
def card(
    *,
    features: int | None = None,
    vnet_header: bool = True,
    legacy: bool = False,
    packed: bool | None = None,
    text: str = "tap=t0",
    threads: int = 0,
    **machine: Any,
) -> Iterator[Card]:
    """A started card in slot 3, with so many loops of its own. Its rings are split unless *packed*, and *native* is as
    the machine has it; by default both are the way that the test runs over.
    """
    packed = WAY.get("packed", False) if packed is None else packed
    machine = {"native": WAY.get("native", True)} | machine
    taps: list[FakeTap] = []
    peers: list[socket.socket] = []

    def open_tap(name: str) -> FakeTap:
        near, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.setblocking(False)
        peer.setblocking(False)
        taps.append(FakeTap(near.detach(), vnet_header))
        peers.append(stack.enter_context(peer))
        return taps[-1]

    def create(config: NetConfig, context: DeviceContext) -> NetDevice:
        return NetDevice(config, context, open_tap)

    with ExitStack() as stack, SimMachine(**machine) as m:
        function = _add(m, create, text, threads)
        driver = m.driver_legacy(3) if legacy else m.driver(3)
        if packed and not legacy:
            features = (driver.registers.offered() if features is None else features) | PACKED
        driver.start(features)
        yield Card(m, function.device, driver, peers, taps)
