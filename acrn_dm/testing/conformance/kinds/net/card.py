"""The driver's side of a network card (virtio 5.1): packet headers, frames in both directions, control commands."""

import functools
from collections.abc import Sequence

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import started, world
from acrn_dm.testing.conformance.kinds.net.bits import GUEST_GSO, MQ, MRG_RXBUF, REQUIRES, RSS, header_bytes
from acrn_dm.testing.conformance.outside.world import Network
from acrn_dm.testing.driver import Completion, VirtioDriver

STATUS_AT, MAX_PAIRS_AT, MTU_AT, SPEED_AT, DUPLEX_AT = 6, 8, 10, 12, 16
LINK_UP, ANNOUNCE = 1, 2
ACK_OK, ACK_ERROR = 0, 1
NUM_BUFFERS_AT = 10
ROOM = 2048  # of a receive buffer unless told
LARGE = 65_609  # with segmentation offload, 5.1.6.3.1


@attrs.frozen
class Received:
    """A packet as its driver gets it: the whole header, the frame, and how many buffers each byte of it took."""

    header: bytes
    data: bytes
    buffers: Sequence[Completion]

    @property
    def flags(self) -> int:
        return self.header[0]

    @property
    def gso_type(self) -> int:
        return self.header[1]

    def field(self, at: int) -> int:
        """le16 of the header at *at*."""
        return int.from_bytes(self.header[at : at + 2], "little")


@attrs.define(eq=False)
class Card:
    """A started card and, if one was given, its network."""

    bench: Bench
    driver: VirtioDriver

    @property
    def header(self) -> int:
        """Bytes of the packet header."""
        return header_bytes(self.driver.features)

    @functools.cached_property
    def network(self) -> Network:
        """The network. Raises NotApplicable."""
        return world(self.bench, Network)

    @property
    def mac(self) -> bytes:
        """The address in the configuration space."""
        return self.driver.read_config(0, 6)

    def send(self, data: bytes, header: bytes = b"", pair: int = 0) -> Completion:
        """Send a frame; *header* are as many bytes of the packet header as matter, the rest is 0."""
        return self.driver.queue(2 * pair + 1).transfer([header.ljust(self.header, b"\0"), data])

    def post(self, *sizes: int, pair: int = 0) -> None:
        """Give receive buffers, one chain each."""
        queue = self.driver.queue(2 * pair)
        for size in sizes:
            queue.send([], [size])
        queue.kick()
        self.bench.machine.settle()

    def post_enough(self, pair: int = 0) -> None:
        """Give buffers until there are some for packets of any size."""
        large = LARGE if self.driver.features & GUEST_GSO else ROOM
        count, size = (64, ROOM) if self.driver.features & MRG_RXBUF else (8, large)
        self.post(*[size] * (count - self.driver.queue(2 * pair).in_flight), pair=pair)

    def received(self, pair: int = 0) -> list[Received]:
        """Packets that arrived since the last call."""
        self.bench.machine.settle()
        buffers = self.driver.queue(2 * pair).completed()
        packets = []
        while buffers:
            first = buffers[0].data
            assert buffers[0].written >= self.header, f"a receive buffer came back with {buffers[0].written} bytes"
            count = int.from_bytes(first[NUM_BUFFERS_AT:12], "little") if self.driver.features & MRG_RXBUF else 1
            assert 1 <= count <= len(buffers), f"num_buffers is {count}, but {len(buffers)} buffers came back"
            whole = b"".join(b.data[: b.written] for b in buffers[:count])
            packets.append(Received(first[: self.header], whole[self.header :], buffers[:count]))
            del buffers[:count]
        return packets

    def arrive(self, *frames: bytes, pair: int = 0) -> list[Received]:
        """Frames arrive; returns what the driver got."""
        for data in frames:
            self.network.deliver(data)
            self.bench.machine.settle()
        return self.received(pair)

    def arrive_unfinished(self, header: bytes, data: bytes) -> list[Received]:
        """The same for one that needs a checksum or segmentation."""
        self.network.deliver_unfinished(header, data)
        return self.received()

    def seen(self) -> list[bytes]:
        """Frames that reached the network since the last call."""
        self.bench.machine.settle()
        return [frame.data for frame in self.network.seen()]

    @property
    def pairs(self) -> int:
        """Queue pairs there are for what was negotiated."""
        if not self.driver.features & (MQ | RSS):
            return 1
        return int.from_bytes(self.driver.read_config(MAX_PAIRS_AT, 2), "little")

    def command(self, group: int, number: int, data: bytes = b"", room: int = 0) -> tuple[int, bytes]:
        """Do a control command; returns its acknowledgement, and the *room* bytes of its answer behind that."""
        queue = self.driver.queue(2 * self.pairs)
        done = queue.transfer(
            [bytes((group, number)), data] if data else [bytes((group, number))], [1, *[room] * (room > 0)]
        )
        return done.data[0], done.data[1:]

    def must(self, group: int, number: int, data: bytes = b"") -> None:
        """Do a command that has to be acknowledged."""
        ack, _ = self.command(group, number, data)
        assert ack == ACK_OK, f"command {group}.{number} is acknowledged with {ack}"


def card(bench: Bench, *, want: int = 0, without: int = 0) -> Card:
    """A card that is started with all it offers but *without*. Raises NotApplicable where *want* is not offered."""
    return Card(bench, started(bench, want=want, without=without, requires=REQUIRES))
