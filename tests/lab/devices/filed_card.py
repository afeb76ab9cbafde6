"""A PCI function by vfio-user that has pages of its BAR in a file, and tells of each access to the others.

``python -m tests.lab.devices.filed_card SOCKET FILE ACCESSES``: ACCESSES gets a line for each (``read PLACE``, ``write
PLACE``). What is reached by a message is never in FILE, whichever page it is of. Ends with 0 on SIGTERM.
"""

import contextlib
import os
import signal
import struct
import sys
from pathlib import Path
from typing import TextIO

import attrs

from tests.devices.vfio_user.fake_server import CONFIG, READ, WRITE, Request, config_space
from tests.devices.vfio_user.filed_server import AT, PAGE, SIZE, Filed, sparse

FILED = (0, 2)  # pages of the BAR
WORD, KEPT = 0x20, 0xF11E_0000  # where each page of the file has a word, and this plus the page's number


@attrs.define(eq=False)
class FiledCard(Filed):
    """The server."""

    accesses: TextIO = attrs.field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.more = sparse(*((page * PAGE, PAGE) for page in FILED))
        self.config = config_space(bars={0: 0})
        self.sizes = {0: SIZE}
        for command, name in ((READ, "read"), (WRITE, "write")):
            self.answers[command] = lambda _, request, name=name: self.told(request, name)

    def keep_in(self, path: Path) -> None:
        """That is the file."""
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self.file, AT + SIZE)
        for page in range(SIZE // PAGE):
            os.pwrite(self.file, struct.pack("<I", KEPT + page), AT + page * PAGE + WORD)
        self._fds.append(self.file)

    def told(self, request: Request, name: str) -> None:
        place, region, _ = struct.unpack_from("<QII", request.payload)
        if region != CONFIG:
            self.accesses.write(f"{name} {place:#x}\n")
        self.good(request)

    def region(self, index: int) -> bytearray:
        """All of the BAR."""
        if index != CONFIG and len(self.bars[index]) < SIZE:
            self.bars[index] = bytearray(SIZE)
        return super().region(index)


def main() -> None:
    socket, file, accesses = map(Path, sys.argv[1:])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(accesses.open("a", buffering=1))
        server = FiledCard(socket, accesses=lines)
        server.keep_in(file)
        stack.enter_context(server)
        signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    main()
