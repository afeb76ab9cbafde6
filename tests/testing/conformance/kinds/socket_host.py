"""A socket device whose host's end is played: streams and sequenced packets with credit (virtio 5.10). It breaks one
rule, if asked to.
"""

from collections import deque
from collections.abc import Sequence

import attrs

from acrn_dm.contract.types import DeviceContext
from acrn_dm.testing.conformance import SLOT
from acrn_dm.testing.conformance.kinds.vsock import flow as vs
from acrn_dm.testing.conformance.kinds.vsock.flow import Packet, parse
from acrn_dm.testing.conformance.outside import HostSockets
from acrn_dm.testing.machine import SimMachine
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.queue import Queue

CID = 42
ROOM = 64 << 10
PART = 4096
Key = tuple[int, int]  # guest's port, host's


@attrs.define(eq=False)
class End:
    """The host's end of a connection."""

    kind: int
    room: int  # the guest's buf_alloc, and what it has taken of what was sent
    taken: int
    sent: int = 0
    forwarded: int = 0
    waiting: deque[tuple[bytes, bool]] = attrs.field(factory=deque)  # parts to be sent, and whether a message ends
    received: bytes = b""
    deaf: bool = False  # the guest receives no more
    dumb: bool = False  # the guest sends no more


class SocketDevice(VirtioDevice):
    """The device; *broken* names what it does wrong."""

    device_id = 19
    pci_class = 0x078000

    def __init__(self, context: DeviceContext, host: "PlayedHost") -> None:
        super().__init__(context)
        self.host = host
        self.broken = host.broken
        self.rx: Queue | None = None
        self.answers: deque[Packet] = deque()
        self.ends: dict[Key, End] = {}

    @property
    def features(self) -> int:
        return vs.STREAM_F | vs.SEQPACKET_F | (0 if self.broken == "implies streams" else vs.NO_IMPLIED_STREAM)

    @property
    def queue_sizes(self) -> Sequence[int]:
        return (64, 64, 64)

    @property
    def config_size(self) -> int:
        return 8

    def read_config(self, offset: int, size: int) -> bytes:
        cid = {"reserved cid": 2, "wide cid": 1 << 40 | CID}.get(self.broken, CID)
        return cid.to_bytes(8, "little")[offset : offset + size]

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        self.rx = next((queue for queue in queues if queue.index == vs.RX), None)
        self.streams = self.broken != "needs a bit" or bool(features & 7)

    def stop(self) -> None:
        self.rx = None
        self.answers.clear()
        self.ends.clear()

    def handle_queue(self, queue: Queue) -> None:
        if queue.index == vs.TX:
            while not (self.broken == "waits for buffers" and self.answers):
                chains = queue.pop_batch(1)
                if not chains:
                    break
                data = chains[0].read()
                if self.broken == "counts the buffer":
                    data = data[:24] + (len(data) - vs.HEADER.size).to_bytes(4, "little") + data[28:]
                self.take(parse(data))
                queue.push(chains[0], 0)
                self.pump()
        self.pump()

    def take(self, packet: Packet) -> None:
        """A packet of the guest's."""
        key = (packet.src_port, packet.dst_port)
        end = self.ends.get(key)
        if packet.type not in (vs.STREAM, vs.SEQPACKET):
            if self.broken != "ignores types" and (packet.op != vs.RST or self.broken == "answers RST"):
                self.answer(packet, vs.RST)
            return
        if packet.op == vs.REQUEST:
            self.request(packet, key)
        elif end is None:
            if packet.op != vs.RST:
                self.answer(packet, vs.RST)
        else:
            end.room, end.taken = packet.buf_alloc, packet.fwd_cnt
            self.serve(packet, key, end)

    def request(self, packet: Packet, key: Key) -> None:
        accepts = packet.dst_port in self.host.listening.get(packet.type, set()) and self.streams
        if accepts and self.broken != "refuses":
            self.ends[key] = End(packet.type, packet.buf_alloc, packet.fwd_cnt)
            self.host.accepted[packet.dst_port] = self.ends[key]
            self.answer(packet, vs.RESPONSE, self.ends[key])
        elif self.broken != "silent refusal":
            self.answer(packet, vs.RST)

    def serve(self, packet: Packet, key: Key, end: End) -> None:
        if packet.op == vs.RW:
            end.received += packet.data[::-1] if self.broken == "reverses" else packet.data
            end.forwarded += 0 if self.broken == "stale credit" else packet.length
        elif packet.op == vs.CREDIT_REQUEST and self.broken != "no credit update":
            self.answer(packet, vs.CREDIT_UPDATE, end)
        elif packet.op == vs.SHUTDOWN:
            end.deaf |= bool(packet.flags & vs.NO_RECEIVE)
            end.dumb |= bool(packet.flags & vs.NO_SEND)
            hasty = self.broken == "resets at once"
            if (end.deaf and end.dumb and self.broken != "never resets") or hasty:
                self.answer(packet, vs.RST)
                del self.ends[key]
        elif packet.op == vs.RST:
            del self.ends[key]

    def answer(self, packet: Packet, op: int, end: End | None = None, data: bytes = b"", flags: int = 0) -> None:
        """Queue a packet for the guest, in answer to one of its."""
        self.answers.append(
            Packet(
                src_cid=packet.dst_cid | (1 << 40 if self.broken == "wide addresses" else 0),
                dst_cid=packet.src_cid,
                src_port=packet.dst_port,
                dst_port=packet.src_port,
                length=len(data),
                type=packet.type,
                op=op,
                flags=flags,
                buf_alloc=0 if self.broken == "no room" else ROOM,
                fwd_cnt=0 if end is None else end.forwarded & 0xFFFF_FFFF,
                data=data,
            )
        )

    def pump(self) -> None:
        """Send what there is room for."""
        for key, end in self.ends.items():
            while end.waiting and (part := self.part(end)):
                data, last = part
                mark = vs.SEQ_EOM if last and end.kind == vs.SEQPACKET and self.broken != "no marks" else 0
                asked = Packet(
                    src_cid=CID, dst_cid=2, src_port=key[0], dst_port=key[1], length=0, type=end.kind, op=vs.RW
                )
                self.answer(asked, vs.RW, end, data, mark)
        while self.rx is not None and self.answers:
            chains = self.rx.pop_batch(1)
            if not chains:
                break
            chains[0].write(self.answers.popleft().to_bytes())
            self.rx.push(chains[0])
        if self.rx is not None:
            self.rx.flush()

    def part(self, end: End) -> tuple[bytes, bool] | None:
        """The next bytes that the guest has room for."""
        data, last = end.waiting.popleft()
        free = end.room - (end.sent - end.taken & 0xFFFF_FFFF)
        if self.broken == "ignores credit":
            free = len(data)
        if self.broken == "counts headers":
            free -= vs.HEADER.size
        free = min(free, PART)
        if free < len(data):
            end.waiting.appendleft((data[max(free, 0) :], last))
        if free <= 0:
            return None
        end.sent += len(data[:free])
        return data[:free], last and free >= len(data)


class PlayedHost(HostSockets):
    """The host's end, and the builder of its device."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.device: SocketDevice | None = None
        self.listening: dict[int, set[int]] = {}
        self.accepted: dict[int, End] = {}

    def build(self, machine: SimMachine) -> None:
        def create(context: DeviceContext) -> SocketDevice:
            self.device = SocketDevice(context, self)
            return self.device

        self.listening, self.accepted = {}, {}
        machine.add(create, slot=SLOT)

    def listen(self, port: int) -> None:
        self.listening.setdefault(vs.STREAM, set()).add(port)

    def listen_seqpacket(self, port: int) -> None:
        self.listening.setdefault(vs.SEQPACKET, set()).add(port)

    def send(self, port: int, data: bytes) -> None:
        assert self.device is not None
        self.accepted[port].waiting.append((data, True))
        self.device.pump()

    def received(self, port: int) -> bytes:
        end = self.accepted[port]
        data, end.received = end.received, b""
        return data
