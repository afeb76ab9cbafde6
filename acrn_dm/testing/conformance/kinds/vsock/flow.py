"""The driver's side of a socket device (virtio 5.10): packets, connections, and the credit that both ends keep."""

import functools
import struct
from collections import deque
from typing import Any

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import started, world
from acrn_dm.testing.conformance.outside.world import HostSockets
from acrn_dm.testing.driver import VirtioDriver

STREAM_F, SEQPACKET_F, NO_IMPLIED_STREAM = 1 << 0, 1 << 1, 1 << 2
RX, TX, EVENTS = 0, 1, 2
STREAM, SEQPACKET = 1, 2  # type
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)  # op
NO_RECEIVE, NO_SEND = 1, 2  # flags of SHUTDOWN
SEQ_EOM, SEQ_EOR = 1, 2  # flags of RW
HOST_CID = 2
GUEST_PORT, HOST_PORT, CLOSED_PORT = 3000, 1234, 4321
HEADER = struct.Struct("<QQIIIHHIII")
ROOM = 256 << 10  # bytes that the driver has for each connection
BUFFER = 4096 + HEADER.size


@attrs.frozen(kw_only=True)
class Packet:
    """struct virtio_vsock_hdr and its payload."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    length: int
    type: int
    op: int
    flags: int = 0
    buf_alloc: int = 0
    fwd_cnt: int = 0
    data: bytes = b""

    def to_bytes(self) -> bytes:
        """As in a buffer."""
        values = attrs.astuple(self)[:-1]
        return HEADER.pack(*values) + self.data


def parse(data: bytes) -> Packet:
    """Read a packet. Raises AssertionError for one that is cut off."""
    assert len(data) >= HEADER.size, f"a packet of {len(data)} bytes"
    names = [field.name for field in attrs.fields(Packet)][:-1]
    values: dict[str, Any] = dict(zip(names, HEADER.unpack_from(data), strict=True))
    packet = Packet(**values, data=data[HEADER.size : HEADER.size + values["length"]])
    assert len(packet.data) == packet.length, f"a packet of {packet.length} bytes has {len(packet.data)}"
    return packet


@attrs.define(eq=False)
class Sockets:
    """A started device, and the driver's end of its connections."""

    bench: Bench
    driver: VirtioDriver
    _inbox: deque[Packet] = attrs.field(factory=deque, init=False, repr=False)

    @functools.cached_property
    def host(self) -> HostSockets:
        """The other end. Raises NotApplicable."""
        return world(self.bench, HostSockets)

    @functools.cached_property
    def cid(self) -> int:
        """guest_cid."""
        return int.from_bytes(self.driver.read_config(0, 8), "little")

    def post(self, count: int = 16) -> None:
        """Give receive buffers."""
        for _ in range(count):
            self.driver.queue(RX).send([], [BUFFER])
        self.driver.queue(RX).kick()
        self.bench.machine.settle()

    def send(self, packet: Packet, *, behind: bytes = b"") -> None:
        """Send a packet in a buffer with *behind* after its payload; the buffer has to come back."""
        queue = self.driver.queue(TX)
        token = queue.send([packet.to_bytes() + behind])
        queue.kick()
        done = self.bench.collect(queue, 1)
        assert [c.token for c in done] == [token], "a transmit buffer does not come back"

    def received(self, count: int = 1) -> list[Packet]:
        """Packets since the last call: so many at least, unless no more come; the buffers are given again."""
        while self._fetch() and len(self._inbox) < count:
            pass
        found = list(self._inbox)
        self._inbox.clear()
        return found

    def next(self) -> Packet | None:
        """The next packet; None where there is none."""
        if not self._inbox:
            self._fetch()
        return self._inbox.popleft() if self._inbox else None

    def _fetch(self) -> bool:
        """Take what has come, and give its buffers again; whether there was any."""
        done = self.bench.collect(self.driver.queue(RX), 0)
        self._inbox += (parse(chain.data[: chain.written]) for chain in done)
        if done:
            self.post(len(done))
        return bool(done)

    def connection(self, port: int = HOST_PORT, *, kind: int = STREAM, room: int = ROOM) -> "Connection":
        """An unconnected end; *room* is the buf_alloc that it tells."""
        return Connection(self, port, kind, room)


@attrs.define(eq=False)
class Connection:
    """The driver's end of one connection."""

    sockets: Sockets
    port: int
    kind: int
    room: int
    forwarded: int = 0  # bytes that the driver's user has taken: fwd_cnt
    local: int = GUEST_PORT

    def packet(self, op: int, data: bytes = b"", *, flags: int = 0) -> Packet:
        """A packet of this connection."""
        return Packet(
            src_cid=self.sockets.cid,
            dst_cid=HOST_CID,
            src_port=self.local,
            dst_port=self.port,
            length=len(data),
            type=self.kind,
            op=op,
            flags=flags,
            buf_alloc=self.room,
            fwd_cnt=self.forwarded,
            data=data,
        )

    def send(self, op: int, data: bytes = b"", *, flags: int = 0, behind: bytes = b"") -> None:
        """Send one."""
        self.sockets.send(self.packet(op, data, flags=flags), behind=behind)

    def answer(self, op: int) -> Packet:
        """Wait for a packet of that kind on this connection, past others that are allowed at any time."""
        while (packet := self.sockets.next()) is not None:
            assert self.owns(packet), f"a packet of another connection: {packet}"
            if packet.op == op:
                return packet
            assert packet.op in (CREDIT_UPDATE, CREDIT_REQUEST), f"op {packet.op} where {op} was to come"
        raise AssertionError(f"no packet with op {op} comes")

    def owns(self, packet: Packet) -> bool:
        """Whether *packet* is of this connection."""
        return (packet.src_port, packet.dst_port, packet.dst_cid) == (self.port, self.local, self.sockets.cid)

    def open(self) -> Packet:
        """Connect; returns the RESPONSE."""
        self.send(REQUEST)
        return self.answer(RESPONSE)


def sockets(bench: Bench, *, want: int = 0, without: int = 0, buffers: int = 16) -> Sockets:
    """A device that is started with all it offers but *without*, with so many receive buffers. Raises NotApplicable
    where *want* is not offered, or where no host's end was given.
    """
    made = Sockets(bench, started(bench, want=want, without=without))
    assert made.host is not None
    if buffers:
        made.post(buffers)
    return made
