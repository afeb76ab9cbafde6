"""``--cmd_monitor PATH``: commands as JSON objects, and the machine's events to one client that asks for them.

``{"command": "destroy"}`` ends the machine at once, not one with a real-time guest; ``blkrescan`` inserts a medium into
an empty virtio-blk slot, ``blkthrottle`` (``SLOT,iops=N,...``) replaces the limits of a disk; ``driver``
(``SLOT,TEXT``) tells the driver behind a disk or a card something, in the driver's own words; ``set_link`` pulls a
network card's cable (``SLOT,off``) or plugs it in; ``resume`` lets a guest go on that stands still because the host
failed one of its devices, or sleeps; ``register_vm_event_client`` asks for events, and tells at once why the guest
stands still, if it does. Each command is answered by ``{"ack": 0}`` or ``{"ack": -1}``, also one that is unknown (the
original says nothing then); a stream that is no JSON is answered, too, and hung up on.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import attrs

from acrn_dm.base.errors import AcrnDmError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define
from acrn_dm.management import command
from acrn_dm.management.command import Command, MalformedError, Splitter
from acrn_dm.management.controls import Controls, parse_limits, parse_link, parse_rescan
from acrn_dm.management.events import Event
from acrn_dm.management.unix_server import Connection, UnixServer

log = logging.getLogger(__name__)

MAX_CLIENTS = 4


class CommandMonitor:
    """The server. Everything happens on the loop's thread."""

    def __init__(self, loop: IoLoop, path: Path, controls: Controls, *, may_destroy: bool = True) -> None:
        """Raises ConfigError and HostError."""
        self.controls = controls
        self.may_destroy = may_destroy
        self.listener: Connection | None = None  # who wants the events
        self.standing: Sequence[Event] = ()  # those that still hold, for who begins to listen
        self._server = UnixServer(
            loop, path, lambda client: _Session(self, client), most=MAX_CLIENTS, option="--cmd_monitor"
        )

    def send_event(self, event: Event) -> None:
        """Tell who wants to know; nobody may."""
        if self.listener is not None:
            self.listener.send(command.encode(event))

    def close(self) -> None:
        """Hang up and remove the socket. Idempotent."""
        self._server.close()


@define(eq=False)
class _Session:
    """The conversation with one client: commands in, answers out."""

    monitor: CommandMonitor
    client: Connection
    _splitter: Splitter = attrs.field(factory=Splitter, init=False)

    def received(self, data: bytes) -> None:
        """Answer every command that is complete."""
        try:
            found = self._splitter.feed(data)
        except MalformedError as e:
            log.warning("command monitor: %s: hanging up", e)
            self.client.send(command.ack(False))
            self.client.close()
            return
        for text in found:
            if not self.client.is_open:  # it may have been dropped for not reading
                return
            listened = self.monitor.listener
            self.client.send(command.ack(self._obey(text)))
            if self.monitor.listener is not listened:
                for event in tuple(self.monitor.standing):
                    self.monitor.send_event(event)

    def closed(self) -> None:
        """Another client may ask for events now."""
        if self.monitor.listener is self.client:
            self.monitor.listener = None

    def _obey(self, text: bytes) -> bool:
        try:
            return self._carry_out(command.parse(text))
        except (ValueError, AcrnDmError) as e:
            log.warning("command monitor: %s", e)
            return False

    def _carry_out(self, wanted: Command) -> bool:
        controls = self.monitor.controls
        if wanted.name == "destroy":
            if not self.monitor.may_destroy:
                log.warning("command monitor: a real-time guest is not destroyed")
                return False
            controls.power_off("by the command monitor")
            return True
        if wanted.name == "resume":
            return controls.resume()
        if self._on_device(wanted):
            return True
        if wanted.name == "register_vm_event_client":
            if self.monitor.listener is not None:
                return False
            self.monitor.listener = self.client
            self.client.waits = True
            return True
        raise ValueError(f"unknown command {wanted.name[:32]!r}")

    def _on_device(self, wanted: Command) -> bool:
        """Carry out what is about one device; False for what is not."""
        controls = self.monitor.controls
        if wanted.name == "blkrescan":
            controls.insert_medium(*parse_rescan(wanted.arguments))
        elif wanted.name == "blkthrottle":
            controls.set_limits(*parse_limits(wanted.arguments))
        elif wanted.name == "driver":
            controls.command_driver(*parse_rescan(wanted.arguments))
        elif wanted.name == "set_link":
            controls.set_link(*parse_link(wanted.arguments))
        else:
            return False
        return True
