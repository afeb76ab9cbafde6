"""A small network card with what the built-in one does not offer: filters, an MTU, a speed, announcements, addresses by
command. It breaks one rule, if asked to.
"""

import struct
from collections.abc import Sequence

from acrn_dm.contract.types import DeviceContext
from acrn_dm.testing.conformance import SLOT
from acrn_dm.testing.conformance.kinds.net import bits, packets
from acrn_dm.testing.conformance.outside.world import Frame, Network
from acrn_dm.testing.machine import SimMachine
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.queue import Queue

MTU = 1500
MAC = bytes.fromhex("02deadbeef01")
SWITCHES = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")
OFFER = (bits.MTU | bits.MAC | bits.STATUS | bits.CTRL_VQ | bits.CTRL_RX | bits.CTRL_RX_EXTRA | bits.CTRL_VLAN) | (
    bits.GUEST_ANNOUNCE | bits.CTRL_MAC_ADDR | bits.SPEED_DUPLEX
)


class FilterCard(VirtioDevice):
    """The card; *broken* names what it does wrong, *network* is where its frames go."""

    device_id = 1
    pci_class = 0x020000
    transitional = True

    def __init__(self, context: DeviceContext, network: "FilterNetwork", broken: str) -> None:
        super().__init__(context)
        self.network = network
        self.broken = broken
        self.status, self.speed, self.mtu, self.mac = 1, 10_000, MTU, MAC
        self.queues: dict[int, Queue] = {}
        self.accepted = 0
        self.forget()

    def forget(self) -> None:
        """As after power-on."""
        if self.broken != "keeps the table":
            self.unicast: tuple[bytes, ...] = ()
            self.multicast: tuple[bytes, ...] = ()
        if self.broken != "keeps the VLANs":
            self.vlans: set[int] = {7} if self.broken == "VLANs at first" else set()
        self.on: dict[str, bool] = {"promisc": True}
        self.mac = MAC

    @property
    def features(self) -> int:
        return OFFER

    @property
    def queue_sizes(self) -> Sequence[int]:
        return (64, 64, 64)

    @property
    def config_size(self) -> int:
        return 17

    def read_config(self, offset: int, size: int) -> bytes:
        mac = bytes(6) if self.broken == "no address" else self.mac
        return struct.pack("<6sHHHIB", mac, self.status, 1, self.mtu, self.speed, 1)[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        if self.broken == "writable mtu" and offset == 10:
            self.mtu = 1400
        if self.broken == "writable speed" and offset == 12:
            self.speed = 100

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        if self.broken != "fixed address" and offset < 6:
            self.mac = self.mac[:offset] + data + self.mac[offset + len(data) :]

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        self.accepted = features
        self.queues = {queue.index: queue for queue in queues}

    def stop(self) -> None:
        self.queues = {}

    def reset(self) -> None:
        self.forget()

    def handle_queue(self, queue: Queue) -> None:
        if queue.index == 0:
            return
        for chain in queue.pop_batch():
            if queue.index == 1:
                data = chain.read()[bits.header_bytes(self.accepted) :]
                if self.broken != "short mtu" or len(data) < packets.ETHERNET + self.mtu:
                    self.network.sent.append(Frame(data))
                queue.push(chain, 0)
            else:
                ack = self.command(chain.read())
                chain.write(bytes([1 if self.broken == "refuses everything" else ack]))
                queue.push(chain)

    def command(self, data: bytes) -> int:
        group, number, body = data[0], data[1], data[2:]
        if group == 0 and number < len(SWITCHES) and len(body) == 1:
            self.on[SWITCHES[number]] = bool(body[0])
            return 0
        if (group, number) == (1, 0):
            return self.table(body)
        if (group, number) == (1, 1) and len(body) == 6:
            self.mac = self.mac if self.broken == "keeps the address" else body
            return 0
        if group == 2 and number < 2 and len(body) == 2:
            vlan = int.from_bytes(body, "little")
            self.vlans = self.vlans | {vlan} if number == 0 else self.vlans - {vlan}
            return 0
        if (group, number) == (3, 0) and self.broken != "announces for ever":
            self.status &= ~2
        return int(group != 3 or bool(number))

    def table(self, body: bytes) -> int:
        found = []
        for _ in range(2):
            if len(body) < 4 and self.broken != "half tables":
                return 1
            count = int.from_bytes(body[:4], "little")
            entries, body = body[4 : 4 + 6 * count], body[4 + 6 * count :]
            if len(entries) != 6 * count and self.broken != "half tables":
                return 1
            found.append(tuple(entries[at : at + 6] for at in range(0, len(entries), 6)))
        if self.broken == "late table":
            self.unicast, self.multicast = getattr(self, "next", ((), ()))
            self.next = found[0], found[1]
        else:
            self.unicast, self.multicast = found[0], found[1]
        return 0

    def passes(self, data: bytes) -> bool:
        """The filter."""
        on, broken = self.on.get, self.broken
        tagged = data[12:14] == b"\x81\x00"
        if tagged and self.accepted & bits.CTRL_VLAN and int.from_bytes(data[14:16], "big") & 0xFFF not in self.vlans:
            return broken == "no VLAN filter"
        if tagged and broken == "drops tags":
            return False
        if (on("promisc") and self.accepted & bits.CTRL_RX) or not self.accepted & bits.CTRL_RX:
            return broken != "not promiscuous"
        if data[:6] == packets.BROADCAST and on("nomulti") and broken == "nomulti is for broadcasts":
            return False
        if data[:6] == packets.BROADCAST:
            return not on("nobcast") or broken == "broadcasts"
        if data[0] & 1:
            wanted = on("allmulti") or data[:6] in self.multicast or broken == "all groups"
            return bool(wanted) and not (on("nomulti") and not (broken == "allmulti first" and on("allmulti")))
        wanted = on("alluni") or data[:6] == self.mac or data[:6] in self.unicast or broken == "all stations"
        return bool(wanted) and not (on("nouni") and not (broken == "alluni first" and on("alluni")))

    def arrive(self, data: bytes) -> None:
        if self.broken in SWITCHES:
            self.on[self.broken] = False
        too_long = len(data) > packets.ETHERNET + self.mtu and self.broken != "no mtu"
        if too_long or not self.passes(data):
            return
        header = bits.header_bytes(self.accepted)
        for chain in self.queues[0].pop_batch(1):
            chain.write(bytes(10) + b"\1\0"[: header - 10] + data)
            self.queues[0].push(chain)
        self.queues[0].flush()


class FilterNetwork(Network):
    """Its network, and its builder."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.sent: list[Frame] = []
        self.card: FilterCard | None = None

    def build(self, machine: SimMachine) -> None:
        def create(context: DeviceContext) -> FilterCard:
            self.card = FilterCard(context, self, self.broken)
            return self.card

        machine.add(create, slot=SLOT)

    def deliver(self, frame: bytes) -> None:
        assert self.card is not None
        self.card.arrive(frame)

    def seen(self) -> Sequence[Frame]:
        sent, self.sent = self.sent, []
        return sent

    def set_link(self, up: bool) -> None:
        assert self.card is not None
        self.card.status = int(up)
        if self.broken != "silent link":
            self.card.config_changed()

    def ask_for_announcement(self) -> None:
        assert self.card is not None
        self.card.status |= 2
        self.card.config_changed()
