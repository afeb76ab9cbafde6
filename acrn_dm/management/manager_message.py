"""The manager's message (ACRN misc/services/acrn_manager/acrn_mngr.h, ``struct mngr_msg``), 280 bytes, both ways.

magic u64 @0, message id u32 @8, padding, timestamp u64 @16, data 256 bytes @24: for DM_STOP force i32 and time-out u32
(seconds), for DM_BLKRESCAN a text with a NUL behind it; in the answer an error i32 (0 or -1), or the state i32.
"""

import enum
import struct

import attrs

from acrn_dm.base.records import frozen

MAGIC = 0x67_736D_206D_6D76
LAYOUT = struct.Struct("<QI4xQ256s")
SIZE = LAYOUT.size
STOP = struct.Struct("<iI")
RESULT = struct.Struct("<i")


class MessageId(enum.IntEnum):
    """The requests to a device model."""

    STOP = 3
    SUSPEND = 4
    RESUME = 5
    QUERY = 6
    BLKRESCAN = 7


@frozen(kw_only=True)
class Message:
    """One request."""

    number: int
    timestamp: int = 0
    data: bytes = attrs.field(default=b"", repr=False)

    @property
    def force(self) -> bool:
        """DM_STOP: at once."""
        return bool(STOP.unpack_from(self.data)[0])

    @property
    def text(self) -> str:
        """DM_BLKRESCAN: which slot and medium. Raises ValueError."""
        text, nul, _ = self.data.partition(b"\0")
        if not nul:
            raise ValueError("the text has no end")
        return text.decode()


def parse(data: bytes) -> Message:
    """Read SIZE bytes. Raises ValueError."""
    magic, number, timestamp, rest = LAYOUT.unpack(data)
    if magic != MAGIC:
        raise ValueError(f"magic {magic:#x}, expected {MAGIC:#x}")
    return Message(number=number, timestamp=timestamp, data=rest)


def answer(request: Message, result: int) -> bytes:
    """The acknowledgement: the request's id and timestamp, and *result*."""
    return LAYOUT.pack(MAGIC, request.number, request.timestamp, RESULT.pack(result))
