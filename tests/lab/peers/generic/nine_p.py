"""A device of somebody else's package, of a kind that acrn_dm has not: a file system over 9P (virtio id 9).

It has one file that can be read and written, ``notes``. The tests install it beside the program, see ``foreign``.
"""

import errno
import struct
from collections.abc import Callable, Sequence

import attrs

from acrn_dm import DeviceContext, DeviceType, Queue, VirtioDevice, hookimpl, option

HEAD = struct.Struct("<IBH")  # size, type, tag
QID = struct.Struct("<BIQ")
ATTRIBUTES = struct.Struct("<Q13sIIIQQQQQ10Q")
BASIC, DIRECTORY, FILE, ROOT_MODE, FILE_MODE = 0x7FF, 0x80, 0, 0o040755, 0o100644
NAME, MSIZE, MOST = b"notes", 64 << 10, 1 << 20
ERROR, VERSION = 7, 100


@attrs.frozen(kw_only=True)
class NinePConfig:
    """Options."""

    tag: str = option(default="foreign", help="What the guest mounts.")


def text(data: bytes, at: int) -> bytes:
    (length,) = struct.unpack_from("<H", data, at)
    return data[at + 2 : at + 2 + length]


class NineP(VirtioDevice):
    """Its state is the file, and by which numbers the driver knows it."""

    device_id = 9
    features = 1  # MOUNT_TAG
    queue_sizes = (128,)

    def __init__(self, config: NinePConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.tag = config.tag.encode()
        self.notes = bytearray()
        self.fids: dict[int, bool] = {}  # number -> whether it is the file

    @property
    def config_size(self) -> int:
        return 2 + len(self.tag)

    def read_config(self, offset: int, size: int) -> bytes:
        return (len(self.tag).to_bytes(2, "little") + self.tag)[offset : offset + size]

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            chain.write(self.answer(chain.read(chain.readable_bytes)))
            queue.push(chain)

    def reset(self) -> None:
        self.fids.clear()

    def answer(self, asked: bytes) -> bytes:
        _, kind, tag = HEAD.unpack_from(asked)
        body = HANDLERS[kind](self, asked[HEAD.size :]) if kind in HANDLERS else errno.EOPNOTSUPP
        if isinstance(body, int):
            kind, body = ERROR - 1, struct.pack("<I", body)
        return HEAD.pack(HEAD.size + len(body), kind + 1, tag) + body

    def qid(self, fid: int) -> bytes:
        return QID.pack(FILE if self.fids[fid] else DIRECTORY, 0, 1 + self.fids[fid])

    def version(self, data: bytes) -> bytes:
        self.fids.clear()
        (size,) = struct.unpack_from("<I", data)
        return struct.pack("<IH", min(size, MSIZE), 8) + b"9P2000.L"

    def attach(self, data: bytes) -> bytes:
        (fid,) = struct.unpack_from("<I", data)
        self.fids[fid] = False
        return self.qid(fid)

    def walk(self, data: bytes) -> bytes | int:
        fid, new, names = struct.unpack_from("<IIH", data)
        if not names:
            self.fids[new] = self.fids[fid]
            return struct.pack("<H", 0)
        if names > 1 or self.fids[fid] or text(data, 10) != NAME:
            return errno.ENOENT
        self.fids[new] = True
        return struct.pack("<H", 1) + self.qid(new)

    def attributes(self, data: bytes) -> bytes:
        (fid,) = struct.unpack_from("<I", data)
        mode, size = (FILE_MODE, len(self.notes)) if self.fids[fid] else (ROOT_MODE, 0)
        return ATTRIBUTES.pack(BASIC, self.qid(fid), mode, 0, 0, 1, 0, size, 4096, size // 512, *(0,) * 10)

    def set_attributes(self, data: bytes) -> bytes:
        valid, _, _, _, size = struct.unpack_from("<IIIIQ", data, 4)
        if valid & 8:
            del self.notes[size:]
        return b""

    def open(self, data: bytes) -> bytes:
        (fid,) = struct.unpack_from("<I", data)
        return self.qid(fid) + struct.pack("<I", 0)

    def read(self, data: bytes) -> bytes:
        _, offset, count = struct.unpack_from("<IQI", data)
        part = bytes(self.notes[offset : offset + min(count, MSIZE)])
        return struct.pack("<I", len(part)) + part

    def write(self, data: bytes) -> bytes | int:
        _, offset, count = struct.unpack_from("<IQI", data)
        part = data[16 : 16 + count]
        if offset > len(self.notes) or offset + len(part) > MOST:
            return errno.ENOSPC
        self.notes[offset : offset + len(part)] = part
        return struct.pack("<I", len(part))

    def clunk(self, data: bytes) -> bytes:
        self.fids.pop(*struct.unpack_from("<I", data))
        return b""


HANDLERS: dict[int, Callable[[NineP, bytes], bytes | int]] = {
    VERSION: NineP.version,
    104: NineP.attach,
    110: NineP.walk,
    24: NineP.attributes,
    26: NineP.set_attributes,
    12: NineP.open,
    116: NineP.read,
    118: NineP.write,
    120: NineP.clunk,
}


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``virtio-9p``."""
    return [DeviceType(name="virtio-9p", summary="one file, to be shared", config=NinePConfig, create=NineP)]
