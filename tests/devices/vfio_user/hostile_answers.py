"""Answers that no vfio-user server should give."""

import os
import struct
from collections.abc import Callable

from tests.devices.vfio_user.fake_server import DMA_READ, HEADER, REGION_INFO, REPLY, Answer, FakeServer, Request


def says(payload: bytes, fds: int = 0) -> Answer:
    """Answered by *payload*, with so many descriptors."""

    def answer(server: FakeServer, request: Request) -> None:
        made = [os.open("/dev/null", os.O_RDONLY) for _ in range(fds)]
        server.reply(request, payload, fds=tuple(made))
        for fd in made:
            os.close(fd)

    return answer


def version(text: bytes, major: int = 0, minor: int = 0) -> Answer:
    """A version with that *text* behind it."""
    return says(struct.pack("<HH", major, minor) + text)


def raw(make: Callable[[Request], bytes]) -> Answer:
    """Answered by bytes that need be no message."""
    return lambda server, request: server.send(make(request))


def header(command: int, size: int = 16, flags: int = REPLY, *, later: int = 0, body: bytes = b"") -> Answer:
    """Answered by a header, and bytes behind it; *later* is added to its number."""
    return raw(lambda request: HEADER.pack(request.ident + later, command, size, flags, 0) + body)


def short(server: FakeServer, request: Request) -> None:
    """Four bytes, however many were asked for."""
    server.reply(request, request.payload + bytes(4))


def ends(server: FakeServer, request: Request) -> None:
    """The end in place of an answer."""
    server.hang_up()


def half(server: FakeServer, request: Request) -> None:
    """The end in the middle of a header."""
    server.send(bytes(7))
    server.hang_up()


def silent(server: FakeServer, request: Request) -> None:
    """Nothing."""


def fails(error: int) -> Answer:
    """An error."""
    return lambda server, request: server.reply(request, error=error)


def floods(server: FakeServer, request: Request) -> None:
    """Questions without an end in place of an answer."""
    question = HEADER.pack(1, DMA_READ, HEADER.size + 16, 0, 0) + struct.pack("<QQ", 0, 16)
    try:
        while True:
            server.send(question * 64)
    except OSError:
        return


def region(which: int, **fields: int) -> Answer:
    """The right answers, but for region *which*."""

    def answer(server: FakeServer, request: Request) -> None:
        if struct.unpack_from("<I", request.payload, 8)[0] != which:
            server.good(request)
            return
        said = {"argsz": 32, "flags": 3, "index": which, "cap": 0, "size": 4096, "offset": 0, **fields}
        server.reply(request, REGION_INFO.pack(*said.values()))

    return answer


def interrupts(count: int, of: int | None = None, index: int | None = None) -> Answer:
    """*count* of kind *of*, by default of each, and one of the others; told as if *index* had been asked for."""

    def answer(server: FakeServer, request: Request) -> None:
        asked = struct.unpack_from("<I", request.payload, 8)[0]
        told = asked if index is None else index
        server.reply(request, struct.pack("<IIII", 16, 1, told, count if of in (None, asked) else 1))

    return answer
