"""Both sockets of one machine, opened and closed together."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from acrn_dm.base.errors import AcrnDmError, ConfigError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.resources import HostFault
from acrn_dm.management.controls import Controls
from acrn_dm.management.events import Event, Events, VmEventKind

if TYPE_CHECKING:
    from acrn_dm.management.command_monitor import CommandMonitor
    from acrn_dm.management.manager_socket import ManagerSocket

log = logging.getLogger(__name__)


def check(config: MachineConfig) -> list[str]:
    """Why the sockets can't be made, one line each. Without the manager's the machine runs: that is only logged."""
    if config.manager_directory is not None:
        _check_managers(config.manager_directory, config.name)
    return [] if config.command_monitor is None else _check_monitor(config.command_monitor)


def _check_managers(directory: Path, name: str) -> None:
    from acrn_dm.management.manager_socket import rival  # noqa: PLC0415

    other = rival(directory, name)
    if other is not None:
        log.warning("%s has a machine named %s: acrnctl finds that one", other, name)


def _check_monitor(path: Path) -> list[str]:
    from acrn_dm.base.sockets.unix_listener import problem  # noqa: PLC0415

    why = problem(path)
    return [] if why is None else [str(ConfigError(why, option="--cmd_monitor", value=str(path)))]


def _command_monitor(loop: IoLoop, path: Path, controls: Controls, *, may_destroy: bool) -> "CommandMonitor":
    """The command monitor, imported for those who want one."""
    from acrn_dm.management.command_monitor import CommandMonitor  # noqa: PLC0415

    return CommandMonitor(loop, path, controls, may_destroy=may_destroy)


def _manager_socket(loop: IoLoop, directory: Path, name: str, controls: Controls) -> "ManagerSocket":
    """The manager's socket, imported for those who have a directory for it."""
    from acrn_dm.management.manager_socket import ManagerSocket  # noqa: PLC0415

    return ManagerSocket(loop, directory, name, controls)


class Management:
    """The sockets that ``config`` asks for, on the main loop."""

    def __init__(self, loop: IoLoop, config: MachineConfig, controls: Controls, *, rtvm: bool = False) -> None:
        """Raises ConfigError and HostError for the command monitor, which somebody asked for by its path.

        The manager's socket is there for tools that may not be installed: without it the machine runs all the same.
        """
        self._monitor: CommandMonitor | None = None
        self._manager: ManagerSocket | None = None
        self._events = Events(loop, self._send)
        if config.command_monitor is not None:
            self._monitor = _command_monitor(loop, config.command_monitor, controls, may_destroy=not rtvm)
            self._monitor.standing = self._events.standing
        if config.manager_directory is not None:
            try:
                self._manager = _manager_socket(loop, config.manager_directory, config.name, controls)
            except AcrnDmError as e:
                log.info("no manager's socket: %s", e)

    def clock_set(self, before: int, after: int) -> None:
        """The guest set its clock. Any thread."""
        self._events.clock_set(before, after)

    def powered_off(self) -> None:
        """The guest is off, by its own doing."""
        self._events.happened(VmEventKind.POWEROFF)

    def triple_fault(self) -> None:
        """A vCPU can't go on."""
        self._events.happened(VmEventKind.TRIPLE_FAULT)

    @property
    def can_resume(self) -> bool:
        """Whether anybody could let a guest go on that stands still. Any thread."""
        return self._monitor is not None or self._manager is not None

    def paused(self, fault: HostFault) -> None:
        """The guest stands still."""
        self._events.paused(fault)

    def resumed(self) -> None:
        """It stands still no more."""
        self._events.resumed()

    def close(self) -> None:
        """Hang up and remove the sockets. Idempotent."""
        for server in (self._monitor, self._manager):
            if server is not None:
                server.close()

    def _send(self, event: Event) -> None:
        if self._monitor is not None:
            self._monitor.send_event(event)
