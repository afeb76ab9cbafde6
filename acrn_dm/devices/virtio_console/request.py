"""Control messages of a multiport console (virtio 5.3.6.2): parsed and built, not acted on."""

import enum
import struct

from acrn_dm.base.records import frozen

MESSAGE = struct.Struct("<IHH")  # port, event, value
SIZE = struct.Struct("<HH")  # columns, rows, behind a RESIZE message


class Event(enum.IntEnum):
    """5.3.6.2."""

    DEVICE_READY = 0
    DEVICE_ADD = 1
    DEVICE_REMOVE = 2
    PORT_READY = 3
    CONSOLE_PORT = 4
    RESIZE = 5
    PORT_OPEN = 6
    PORT_NAME = 7


FROM_DRIVER = frozenset({Event.DEVICE_READY, Event.PORT_READY, Event.PORT_OPEN})


@frozen
class Control:
    """A message from the driver. *port* is below the number of ports, except for DEVICE_READY, which has none."""

    event: Event
    port: int
    value: int


def parse(data: bytes, ports: int) -> Control | None:
    """Read a message of the driver's from the first bytes of its buffer; None for one that means nothing here.

    Too short, an event that only devices send or that nobody knows, a port that does not exist: all ignored.
    """
    if len(data) < MESSAGE.size:
        return None
    port, event, value = MESSAGE.unpack_from(data)
    if event not in FROM_DRIVER or (event != Event.DEVICE_READY and port >= ports):
        return None
    return Control(Event(event), port, value)


def message(event: Event, port: int, value: int = 0, data: bytes = b"") -> bytes:
    """Build a message for the driver."""
    return MESSAGE.pack(port, event, value) + data


def resize(port: int, columns: int, rows: int) -> bytes:
    """Build a RESIZE message: columns first, as the specification has it. Linux before 6.15 takes them for rows."""
    return message(Event.RESIZE, port, 0, SIZE.pack(columns, rows))
