"""The control queue (virtio 5.1.6.5): what frames the driver wants, how many queue pairs it uses, and which offloads
frames for it may need.

A command is one chain: u8 class, u8 command and its data to be read, one byte of acknowledgement to be written.
Another process may have to hear of a command before it is acknowledged, so one may take its time; the next one waits.
"""

import enum
from collections import deque
from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.errors import GuestError
from acrn_dm.base.records import define, frozen
from acrn_dm.devices.virtio_net.receive_filter import ReceiveFilter
from acrn_dm.devices.virtio_net.request import (
    CTRL_GUEST_OFFLOADS,
    CTRL_MAC_ADDR,
    CTRL_RX,
    CTRL_RX_EXTRA,
    CTRL_VLAN,
    GUEST_ANNOUNCE,
    HASH_REPORT,
    MQ,
    NOTF_COAL,
    RSS,
    VQ_NOTF_COAL,
)
from acrn_dm.virtio.queue import Queue

Answer = bool | bytes  # whether a command was carried out; bytes: it was, and this is its result
ACK_OK, ACK_ERROR = b"\0", b"\1"
HEADER = 2
BATCH = 16
MAX_DATA = 1 << 16  # bytes of a command, which only tables come near


class Command(enum.Enum):
    """Class and command number, the bytes of data that belong to it (None: any number), and the feature it needs."""

    PROMISC = (0, 0, 1, CTRL_RX)  # 5.1.6.5.1: u8, on or off
    ALLMULTI = (0, 1, 1, CTRL_RX)
    ALLUNI = (0, 2, 1, CTRL_RX_EXTRA)
    NOMULTI = (0, 3, 1, CTRL_RX_EXTRA)
    NOUNI = (0, 4, 1, CTRL_RX_EXTRA)
    NOBCAST = (0, 5, 1, CTRL_RX_EXTRA)
    MAC_TABLE_SET = (1, 0, None, CTRL_RX)  # 5.1.6.5.2: two tables, each le32 and so many addresses
    MAC_ADDR_SET = (1, 1, 6, CTRL_MAC_ADDR)
    VLAN_ADD = (2, 0, 2, CTRL_VLAN)  # 5.1.6.5.3: le16
    VLAN_DEL = (2, 1, 2, CTRL_VLAN)
    ANNOUNCE_ACK = (3, 0, 0, GUEST_ANNOUNCE)  # 5.1.6.5.4
    VQ_PAIRS_SET = (4, 0, 2, MQ)  # 5.1.6.5.5: le16
    MQ_RSS_CONFIG = (4, 1, None, RSS)  # 5.1.6.5.7.1: types, a table, transmit queues and a key
    MQ_HASH_CONFIG = (4, 2, None, HASH_REPORT)  # 5.1.6.5.6.4: types and a key
    GUEST_OFFLOADS_SET = (5, 0, 8, CTRL_GUEST_OFFLOADS)  # 5.1.6.5.6: le64 of feature bits
    NOTF_COAL_TX_SET = (6, 0, 8, NOTF_COAL)  # 5.1.6.5.10: le32 max_packets, le32 max_usecs
    NOTF_COAL_RX_SET = (6, 1, 8, NOTF_COAL)
    NOTF_COAL_VQ_SET = (6, 2, 12, VQ_NOTF_COAL)  # le16 vq_index, le16 reserved, then the same
    NOTF_COAL_VQ_GET = (6, 3, 4, VQ_NOTF_COAL)  # le16 vq_index, le16 reserved; the same is the result


NUMBERS = {(c.value[0], c.value[1]): c for c in Command}
MODES = frozenset(c for c in Command if c.value[0] == 0)


@frozen(kw_only=True)
class Request:
    """A command that was understood, and its data."""

    command: Command
    data: bytes = attrs.field(repr=False)

    @property
    def value(self) -> int:
        """The data as a little-endian number."""
        return int.from_bytes(self.data, "little")


def parse(chain: Chain) -> Request | None:
    """Read a command, each byte once; None for one that nobody knows or of the wrong length. Raises GuestError."""
    if not chain.writable_bytes or chain.readable_bytes < HEADER:
        raise GuestError("a control command without room for its acknowledgement, or without a command")
    group, number = chain.read(HEADER)
    command = NUMBERS.get((group, number))
    length = chain.readable_bytes - HEADER
    if command is None or length > MAX_DATA or command.value[2] not in (None, length):
        return None
    return Request(command=command, data=chain.read())


def filtered(before: ReceiveFilter, request: Request) -> ReceiveFilter | None:
    """The receive filter after *request*, which is about it; None for data that means nothing."""
    command, value = request.command, request.value
    if command in MODES:
        return before.with_mode(command.name.lower(), bool(value)) if value <= 1 else None
    if command is Command.MAC_TABLE_SET:
        return before.with_tables(request.data)
    if command is Command.MAC_ADDR_SET:
        station = any(request.data) and not request.data[0] & 1
        return attrs.evolve(before, mac=request.data) if station else None
    return before.with_vlan(value, command is Command.VLAN_ADD)


Done = Callable[[bool], None]  # tells whether a command was carried out; on the queue's loop, at most once


@define(eq=False)
class Control:
    """The server of *queue*, from DRIVER_OK until ``close``. *set_pairs* may call what it is given later, on the
    queue's loop; *carry_out* returns whether it did what was asked for, or what the driver asked for.
    """

    queue: Queue
    features: int
    max_pairs: int
    set_pairs: Callable[[int, Done], None] = attrs.field(repr=False)
    carry_out: Callable[[Request], Answer] = attrs.field(repr=False)
    _chains: "deque[Chain]" = attrs.field(factory=deque, init=False, repr=False)  # the first one is being carried out
    _busy: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def serve(self) -> None:
        """Carry out what is there. Raises GuestError."""
        if not self._closed:
            self._chains += self.queue.pop_batch(BATCH)
            self._go_on()

    def close(self) -> None:
        """Let go of the queue; what has not been acknowledged yet never will be."""
        with self.queue.loop.held():
            self._closed = True
            self._chains.clear()

    def _go_on(self) -> None:
        while self._chains and not self._busy:
            self._busy = True
            self._execute(parse(self._chains[0]))
        self.queue.flush()

    def _execute(self, request: Request | None) -> None:
        """5.1.6.5.5.1: as many pairs as there are."""
        if request is None or not self.features & request.command.value[3]:
            self._acknowledge(False)
        elif request.command is not Command.VQ_PAIRS_SET:
            self._acknowledge(self.carry_out(request))
        elif 1 <= request.value <= self.max_pairs:
            self.set_pairs(request.value, self._done)
        else:
            self._acknowledge(False)

    def _done(self, carried_out: bool) -> None:
        if not self._closed:
            self._acknowledge(carried_out)
            self._go_on()

    def _acknowledge(self, answer: Answer) -> None:
        """A result stands behind the acknowledgement, and one that has no room is none (5.1.6.5)."""
        chain = self._chains.popleft()
        result = answer if isinstance(answer, bytes) else b""
        good = answer is not False and chain.writable_bytes >= len(ACK_OK + result)
        chain.write(ACK_OK + result if good else ACK_ERROR)
        self.queue.push(chain)
        self._busy = False
