"""Probes: chains that a device may well return at once, whatever it is; and those that a kind of device surely does."""

import struct

import attrs

MAX_FRAME = 12 + 60


@attrs.frozen(kw_only=True)
class Shape:
    """Buffers of one chain: what the device may read, and how long those are that it may write."""

    out: tuple[bytes, ...] = ()
    in_: tuple[int, ...] = ()

    @property
    def room(self) -> int:
        """Bytes that the device may write."""
        return sum(self.in_)

    def __str__(self) -> str:
        return f"{'+'.join(str(len(data)) for data in self.out) or 'no'} bytes out, {self.room} in"


DATA = bytes(range(1, 65))  # no two bytes the same, so that it shows in which order they were taken
BOTH = Shape(out=(bytes(16), DATA), in_=(64, 1))
READABLE = Shape(out=(bytes(16), DATA))
WRITABLE = Shape(in_=(64, 1))
GENERIC = (BOTH, READABLE, WRITABLE)

BLK_GET_ID = Shape(out=(struct.pack("<IIQ", 8, 0, 0),), in_=(20, 1))
BLK_READ = Shape(out=(struct.pack("<IIQ", 0, 0, 0),), in_=(512, 1))

KIND_PROBES: dict[str, tuple[Shape, ...]] = {
    "net": (Shape(out=(bytes(12), bytes(60))),),
    "blk": (BLK_GET_ID, BLK_READ),
    "console": (Shape(out=(b"x",)),),
    "entropy": (Shape(in_=(64,)),),
    "balloon": (Shape(out=(bytes(4),)),),
    "input": (Shape(out=(bytes(8),)),),
    "i2c": (Shape(out=(bytes(8),), in_=(1, 1)),),
    "vsock": (Shape(out=(bytes(44),)),),  # from nobody's address: ignored
    "gpio": (Shape(out=(struct.pack("<HHI", 2, 0, 0),), in_=(2,)),),
}

LEAST = {"entropy": Shape(in_=(1,))}  # where that is less work for the device than its probe


def probes(kind: str) -> tuple[Shape, ...]:
    """What to try on a queue of *kind*, the likeliest first."""
    return KIND_PROBES.get(kind, ()) + GENERIC
