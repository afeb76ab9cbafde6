"""A small network card that offers what no other one here does: UDP tunnels, outer headers, IPsec, RSS.
It segments and encrypts nothing: frames leave as they came. It breaks one rule, if asked to.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

from acrn_dm.contract.types import DeviceContext
from acrn_dm.testing.conformance import SLOT
from acrn_dm.testing.conformance.kinds.net import bits, packets
from acrn_dm.testing.conformance.outside.tap import _addresses
from acrn_dm.testing.conformance.outside.world import Frame, Network
from acrn_dm.testing.machine import SimMachine
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.queue import Queue

PAIRS = 2
TUNNEL = packets.TUNNEL_IPV4 | packets.TUNNEL_IPV6
SECURED = 0x20  # a flag of what was decrypted (1.4)
OFFER = (
    (bits.CSUM | bits.HOST_TSO4 | bits.HOST_TSO6 | bits.HOST_USO)
    | (bits.HOST_UDP_TUNNEL_GSO | bits.HOST_UDP_TUNNEL_GSO_CSUM | bits.OUT_NET_HEADER | bits.IPSEC)
    | (bits.CTRL_VQ | bits.MQ | bits.RSS)
)


class TunnelCard(VirtioDevice):
    """The card; *broken* names what it does wrong, *network* is where its frames go."""

    device_id = 1
    pci_class = 0x020000
    transitional = True
    conformance_reasons: ClassVar[Mapping[str, str]] = {"net.ctrl.mac.drop": "there is no filter"}

    def __init__(self, context: DeviceContext, network: "TunnelNetwork") -> None:
        super().__init__(context)
        self.reset()
        self.network, self.broken = network, network.broken
        self.queues: dict[int, Queue] = {}
        self.accepted = 0
        self.mac = bytes(6)

    @property
    def features(self) -> int:
        return OFFER

    @property
    def queue_sizes(self) -> Sequence[int]:
        return (64,) * (2 * PAIRS + 1)

    @property
    def config_size(self) -> int:
        return 24

    def read_config(self, offset: int, size: int) -> bytes:
        space = struct.pack("<6sHHHIBBHI", self.mac, 0, PAIRS, 0, 0, 0, 40, 128, 0)
        return space[offset : offset + size]

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        if offset < 6:
            self.mac = self.mac[:offset] + data + self.mac[offset + len(data) :]

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        self.accepted = features
        self.queues = {queue.index: queue for queue in queues}

    def reset(self) -> None:
        self.used = 1
        self.unclassified: int | None = None  # where RSS puts everything: it has no hash to choose by
        self.sent_on: dict[bytes, int] = {}

    def stop(self) -> None:
        self.queues = {}

    @property
    def control(self) -> int:
        """Index of the control queue."""
        return 2 * PAIRS if self.accepted & (bits.MQ | bits.RSS) else 2

    def handle_queue(self, queue: Queue) -> None:
        if queue.index != self.control and queue.index % 2 == 0:
            return
        for chain in queue.pop_batch():
            data = chain.read()
            if queue.index == self.control:
                chain.write(bytes([self.command(data[:2], data[2:])]))
            else:
                self.send(data, queue.index // 2)
            queue.push(chain)

    def send(self, data: bytes, pair: int) -> None:
        """A frame of the guest's."""
        size = bits.header_bytes(self.accepted)
        header, frame = data[:size], data[size:]
        if self.takes(header):
            self.sent_on[_addresses(frame, back=True)] = pair
            self.network.sent.append(Frame(frame))

    def takes(self, header: bytes) -> bool:
        """5.1.6.2: what a device must not accept, and fields that mean nothing where their bits are not set."""
        flags, gso, broken = header[0], header[1], self.broken
        tunnel = gso & TUNNEL
        wrong = {
            "both tunnels": tunnel == TUNNEL,
            "tunnels without checksum": bool(tunnel) and not flags & packets.NEEDS_CSUM,
            "valid tunnels": bool(tunnel) and bool(flags & packets.DATA_VALID),
            "bare tunnels": bool(tunnel) and gso == tunnel,
            "checksums without tunnel": bool(flags & packets.UDP_TUNNEL_CSUM) and not tunnel,
        }
        used = {
            "looks at tunnel offsets": not tunnel and any(header[20:24]),
            "looks at outer headers": not self.accepted & bits.OUT_NET_HEADER and any(header[24:26]),
            "looks at associations": any(header[26:32]),
        }
        return not (used.get(broken, False) or any(is_so for name, is_so in wrong.items() if name != broken))

    def command(self, number: bytes, body: bytes) -> int:
        """5.1.6.5.5 and 5.1.6.5.7: the last one says how a queue is chosen."""
        if number == b"\4\0" and len(body) == 2 and 1 <= int.from_bytes(body, "little") <= PAIRS:
            self.used = int.from_bytes(body, "little")
            if self.broken != "RSS for ever":
                self.unclassified = None
            return 0
        if number == b"\4\1" and len(body) >= 8 and int.from_bytes(body[6:8], "little") < PAIRS:
            if self.broken != "never RSS":
                self.unclassified = int.from_bytes(body[6:8], "little")
            return 0
        return 1

    def queue_for(self, data: bytes) -> Queue | None:
        """The queue that a frame arrives on: RSS's, or that of its flow; None where there is none."""
        if self.unclassified is not None:
            return self.queues.get(2 * self.unclassified)
        there = [self.queues[index] for index in range(0, 2 * self.used, 2) if index in self.queues]
        key = _addresses(data)
        own = self.queues.get(2 * self.sent_on.get(key, self.used))
        return own if own in there else there[zlib.crc32(key) % len(there)] if there else None

    def arrive(self, data: bytes) -> None:
        """A frame for the guest."""
        header = bytearray(bits.header_bytes(self.accepted))
        if len(header) > 10:
            header[10] = 1  # num_buffers
        if self.broken == "calls everything secured":
            header[0] |= SECURED
        if self.broken == "tells outer headers" and len(header) > 24:
            header[24] = packets.ETHERNET
        queue = self.queue_for(data)
        if queue is None:
            return
        for chain in queue.pop_batch(1):
            chain.write(bytes(header) + data)
            queue.push(chain)
        queue.flush()


class TunnelNetwork(Network):
    """Its network, and its builder."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.sent: list[Frame] = []
        self.card: TunnelCard | None = None

    def build(self, machine: SimMachine) -> None:
        def create(context: DeviceContext) -> TunnelCard:
            self.card = TunnelCard(context, self)
            return self.card

        machine.add(create, slot=SLOT)

    def deliver(self, frame: bytes) -> None:
        assert self.card is not None
        self.card.arrive(frame)

    def seen(self) -> Sequence[Frame]:
        sent, self.sent = self.sent, []
        return sent
