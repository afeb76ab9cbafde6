"""I2C messages, one per request of the driver (virtio 5.16.6)."""

import struct
from collections.abc import Sequence
from typing import Protocol

import attrs

from acrn_dm import Chain, Claim, GuestError, IoLoop

HEADER = struct.Struct("<HHI")  # struct virtio_i2c_out_hdr: addr, padding, flags
FAIL_NEXT, READ = 1 << 0, 1 << 1
OK, ERROR = 0, 1
MOST_BYTES = 8192  # of one message: what Linux takes (i2c-dev)


class BusError(Exception):
    """The error of a transaction: one message failed, and none behind it was tried. *done* is what those before it
    read.
    """

    def __init__(self, done: Sequence[bytes] = ()) -> None:
        super().__init__(f"message {len(done)} failed")
        self.done = list(done)


@attrs.frozen(kw_only=True)
class Message:
    """One segment of a transaction: what is written, or how much is read."""

    address: int
    ten_bits: bool = False
    data: bytes | None = None  # None: it is read
    length: int = 0


class Bus(Protocol):
    """What stands behind the adapter."""

    @property
    def text(self) -> str:
        """It, in a word or two."""

    @property
    def slow(self) -> bool:
        """Whether a transfer may wait for the host."""

    def check(self) -> list[str]:
        """What is missing, one line each."""

    def claims(self) -> Sequence[Claim]:
        """What only one device can have."""

    def open(self, loop: IoLoop) -> None:
        """Begin. Raises ConfigError and HostError."""

    def started(self) -> None:
        """The driver is there."""

    def transfer(self, messages: Sequence[Message]) -> list[bytes]:
        """One transaction; returns what each message read. Raises BusError."""

    def close(self) -> None:
        """Give everything back. Idempotent."""


@attrs.define(eq=False)
class Request:
    """A request in its chain. *message* is None for one that no bus could carry out."""

    chain: Chain
    message: Message | None
    more: bool  # others of its group follow, and fail if it does

    @classmethod
    def parse(cls, chain: Chain) -> "Request":
        """Raises GuestError where there is no room for a status."""
        if chain.writable_bytes < 1:
            raise GuestError("a request without room for its status")
        header = chain.read(HEADER.size)
        if len(header) < HEADER.size:
            return cls(chain, None, False)
        address, _, flags = HEADER.unpack(header)
        return cls(chain, _message(chain, address, flags), bool(flags & FAIL_NEXT))

    def finish(self, read: bytes | None) -> int:
        """Fill in what was read and the status; None: it failed. Returns how many bytes, from the first on, are there
        now. What is not read is zero, but for buffers that are too long to be a message's.
        """
        room = self.chain.writable_bytes - 1
        status = bytes([ERROR if read is None else OK])
        if room > MOST_BYTES:
            self.chain.write_at(room, status)
            return 0
        self.chain.write((read or b"").ljust(room, b"\0") + status)
        return self.chain.written


def _message(chain: Chain, address: int, flags: int) -> Message | None:
    """The direction is what the flag says; buffers that go the other way are an error (5.16.6.4)."""
    place = decode_address(address)
    to_write, to_read = chain.readable_bytes - HEADER.size, chain.writable_bytes - 1
    if place is None or max(to_write, to_read) > MOST_BYTES:
        return None
    number, ten_bits = place
    if flags & READ:
        return None if to_write else Message(address=number, ten_bits=ten_bits, length=to_read)
    return None if to_read else Message(address=number, ten_bits=ten_bits, data=chain.read(MOST_BYTES))


def decode_address(value: int) -> tuple[int, bool] | None:
    """(address, whether it has 10 bits) of the field; None where it is neither form (5.16.6.1)."""
    low, high = value & 0xFF, value >> 8
    if low & 0xF9 == 0xF0:
        return high | (low & 0x06) << 7, True
    return (low >> 1, False) if not high and not low & 1 else None
