"""The manager's socket: ``/run/acrn/mngr/<vm>.monitor.<pid>.socket``, by which acrnctl and acrnd find a machine.

They scan the directory, take the name up to the first dot for the machine's, and ask DM_QUERY.
"""

import logging
import os
from pathlib import Path

import attrs

from acrn_dm.base.errors import AcrnDmError, ConfigError, HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.files.private_files import make_folder
from acrn_dm.base.process.processes import describe
from acrn_dm.base.records import define
from acrn_dm.base.sockets.unix_listener import is_alive
from acrn_dm.management import manager_message
from acrn_dm.management.controls import Controls, parse_rescan
from acrn_dm.management.manager_message import Message, MessageId
from acrn_dm.management.unix_server import Connection, UnixServer

log = logging.getLogger(__name__)

MAX_CLIENTS = 4
DONE, FAILED = 0, -1


def socket_path(directory: Path, name: str) -> Path:
    """Where the managers look for the machine *name* of this process."""
    return directory / f"{name}.monitor.{os.getpid()}.socket"


def rival(directory: Path, name: str) -> str | None:
    """The process of another machine *name* that the managers would find, in words."""
    for path in directory.glob(f"{name}.monitor.*.socket"):
        pid = path.name.removeprefix(f"{name}.monitor.").removesuffix(".socket")
        if pid != str(os.getpid()) and pid.isascii() and pid.isdigit() and is_alive(path):
            return describe(int(pid))
    return None


class ManagerSocket:
    """The server. Everything happens on the loop's thread."""

    def __init__(self, loop: IoLoop, directory: Path, name: str, controls: Controls) -> None:
        """Make the directory, too. Raises ConfigError and HostError."""
        other = rival(directory, name)
        if other is not None:
            raise ConfigError(f"{other} has a machine of this name", value=name)
        try:
            make_folder(directory)
        except OSError as e:
            raise HostError.from_os(f"making {directory}", e) from e
        path = socket_path(directory, name)
        self._server = UnixServer(
            loop, path, lambda client: _Session(controls, client), most=MAX_CLIENTS, option="manager's socket"
        )

    @property
    def path(self) -> Path:
        """The socket's."""
        return self._server.path

    def close(self) -> None:
        """Hang up and remove the socket. Idempotent."""
        self._server.close()


@define(eq=False)
class _Session:
    """The conversation with one client: messages in, answers out."""

    controls: Controls
    client: Connection
    _buffer: bytearray = attrs.field(factory=bytearray, init=False)

    def received(self, data: bytes) -> None:
        """Answer every message that is complete; hang up on who speaks another language."""
        self._buffer += data
        while self.client.is_open and len(self._buffer) >= manager_message.SIZE:
            taken = bytes(self._buffer[: manager_message.SIZE])
            del self._buffer[: manager_message.SIZE]
            try:
                request = manager_message.parse(taken)
            except ValueError as e:
                log.warning("manager's socket: %s: hanging up", e)
                self.client.close()
                return
            self.client.send(manager_message.answer(request, self._carry_out(request)))

    def closed(self) -> None:
        """Nothing is kept."""

    def _carry_out(self, request: Message) -> int:
        if request.number == MessageId.QUERY:
            return int(self.controls.state())
        try:
            return DONE if self._obey(request) else FAILED
        except (ValueError, AcrnDmError) as e:
            log.warning("manager's socket: %s", e)
            return FAILED

    def _obey(self, request: Message) -> bool:
        controls = self.controls
        if request.number == MessageId.STOP:
            if request.force:
                controls.power_off("by the manager")
            else:
                controls.press_power_button()
            return True
        if request.number == MessageId.RESUME:
            return controls.resume()
        if request.number == MessageId.BLKRESCAN:
            controls.insert_medium(*parse_rescan(request.text))
            return True
        # DM_SUSPEND: a guest goes to sleep by itself; there is no button that it would take for that.
        raise ValueError(f"message {request.number} asks for nothing that can be done")
