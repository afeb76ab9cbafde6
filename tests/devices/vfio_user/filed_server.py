"""A server that has a BAR in a file, all of it or areas, as the description of its region says."""

import mmap
import os
import struct
import tempfile
from collections.abc import Sequence

import attrs

from tests.devices.vfio_user.fake_server import GET_REGION, REGION_INFO, FakeServer, Request

PAGE = mmap.PAGESIZE
SIZE = 4 * PAGE  # of BAR 0
AT = 8 * PAGE  # where it is in the file
READ_WRITE, MAPPED, CAPABILITIES = 3, 4, 8


def sparse(*areas: tuple[int, int], count: int | None = None, following: int = 0) -> bytes:
    """The capability."""
    head = struct.pack("<HHIII", 1, 1, following, len(areas) if count is None else count, 0)
    return head + b"".join(struct.pack("<QQ", *area) for area in areas)


@attrs.define(eq=False)
class Filed(FakeServer):
    """A server that has BAR 0 in a file."""

    more: bytes = b""  # capabilities of its description
    first: int = REGION_INFO.size  # where they begin
    brings: Sequence[int] | None = None  # what comes along; None: the file
    flags: int = READ_WRITE | MAPPED
    bar: int = 0
    file: int = -1
    at: int = AT

    def __attrs_post_init__(self) -> None:
        self.answers[GET_REGION] = Filed.tell
        self.fill()

    def fill(self) -> None:
        """Have another file."""
        with tempfile.TemporaryFile() as file:
            file.truncate(AT + SIZE)
            self.file = os.dup(file.fileno())
        self._fds.append(self.file)

    def tell(self, request: Request) -> None:
        index = struct.unpack_from("<I", request.payload, 8)[0]
        if index != self.bar:
            self.good(request)
            return
        flags = self.flags | (CAPABILITIES if self.more else 0)
        size = self.sizes[index]
        said = REGION_INFO.pack(REGION_INFO.size + len(self.more), flags, index, self.first, size, self.at)
        self.reply(request, said + self.more, fds=(self.file,) if self.brings is None else tuple(self.brings))
