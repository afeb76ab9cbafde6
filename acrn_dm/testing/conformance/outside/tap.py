"""The network of the built-in card: taps that are played, with a kernel's steering among their queues."""

import socket
import zlib
from collections import deque
from collections.abc import Sequence

from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.testing.conformance.outside.world import Frame, Network
from acrn_dm.testing.conformance.subject import SLOT
from acrn_dm.testing.machine import SimMachine
from acrn_dm.virtio.pci.transport import VirtioPci

HEADER = 10  # what a packet header has at least; its length is the card's to choose
MAX_SENT = 1024  # frames that are remembered while nobody looks


class _Queue(PacketFile):
    """A queue of the tap: the card's end of a socket pair, *peer* is the network's."""

    def __init__(self, *, headers: bool) -> None:
        near, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (near, self.peer):
            end.setblocking(False)
        super().__init__(near.detach(), headers)
        self.header_bytes = HEADER
        self.attached = True
        self.sent: deque[bytes] = deque(maxlen=MAX_SENT)

    def configure(self, *, header_bytes: int, offloads: int) -> None:
        self.header_bytes = header_bytes

    def attach(self, attached: bool) -> None:
        self.attached = attached

    def write(self, parts: Sequence[bytes | memoryview]) -> bool:
        self.sent.append(b"".join(parts))  # a network takes what it is given, at any rate
        return True

    def read(self, buffer: memoryview) -> int | None:
        return super().read(buffer)

    def close(self) -> None:
        super().close()
        self.peer.close()


class TapNetwork(Network):
    """A ``virtio-net`` with *options*, and what is on its tap. Without *headers* the tap has no packet headers, so no
    offloads::

        network = TapNetwork("tap=t0,mq=2")
        conform(network.build, outside=network)
    """

    def __init__(self, options: str = "tap=t0", *, headers: bool = True, made: type[NetDevice] = NetDevice) -> None:
        self.options = options
        self._made = made
        self._headers = headers
        self._queues: list[_Queue] = []
        self._flows: dict[bytes, _Queue] = {}  # what was sent where, by the answer's addresses
        self._seen: deque[Frame] = deque()
        self._function: VirtioPci[NetDevice] | None = None

    def build(self, machine: SimMachine) -> NetDevice:
        """Put the card into its slot; its network is this from now on."""
        self._queues, self._flows = [], {}
        self._seen.clear()

        def open_queue(name: str) -> _Queue:
            self._queues.append(_Queue(headers=self._headers))
            return self._queues[-1]

        def create(context: DeviceContext) -> NetDevice:
            return self._made(NetConfig.from_string(self.options), context, open_queue)

        self._function = machine.add(create, slot=SLOT)
        return self._function.device

    def deliver(self, frame: bytes) -> None:
        """To the queue that the flow was last sent on; a new flow goes where its addresses hash to."""
        self._put(bytes(HEADER), frame)

    def deliver_unfinished(self, header: bytes, frame: bytes) -> None:
        """A tap passes a packet header as it is."""
        if not self._headers:
            super().deliver_unfinished(header, frame)
        self._put(header, frame)

    def seen(self) -> Sequence[Frame]:
        """In the order of the queues."""
        self._collect()
        found = list(self._seen)
        self._seen.clear()
        return found

    def make_room(self) -> bool:
        """Read the sockets, whose buffers are small."""
        before = len(self._seen)
        self._collect()
        return len(self._seen) > before

    def set_link(self, up: bool) -> None:
        """As a manager does, by command."""
        assert self._function is not None
        with self._function.lock:
            self._function.device.set_link(up)

    def ask_for_announcement(self) -> None:
        """A card that finds itself on the network again asks for one."""
        self.set_link(False)
        self.set_link(True)

    def _put(self, header: bytes, frame: bytes) -> None:
        self._collect()
        attached = [queue for queue in self._queues if queue.attached]
        if not attached:
            return  # as the kernel's
        key = _addresses(frame)
        queue = self._flows.get(key)
        if queue not in attached:
            queue = attached[zlib.crc32(key) % len(attached)]
        queue.peer.send((header.ljust(queue.header_bytes, b"\0") if self._headers else b"") + frame)

    def _collect(self) -> None:
        for queue in self._queues:
            while queue.sent:
                packet = queue.sent.popleft()
                size = queue.header_bytes if self._headers else 0
                frame = Frame(packet[size:], packet[:HEADER] if size else b"")
                self._flows[_addresses(frame.data, back=True)] = queue
                self._seen.append(frame)


def _addresses(frame: bytes, *, back: bool = False) -> bytes:
    """The IPv4 or IPv6 flow that *frame* is of, or that an answer to it is of; all other frames are one flow."""
    v6 = frame[12:14] == b"\x86\xdd"
    if not v6 and frame[12:14] != b"\x08\x00":
        return b"\0"
    at, size, end = (22, 16, 54) if v6 else (26, 4, 34)
    source, target = frame[at : at + size], frame[at + size : at + 2 * size]
    ports = frame[end : end + 2], frame[end + 2 : end + 4]
    if back:
        return target + source + ports[1] + ports[0]
    return source + target + ports[0] + ports[1]
