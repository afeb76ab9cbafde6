"""The server of one device: its clients, one at a time."""

import functools
import socket
from collections.abc import Callable

from acrn_dm.export.vhost_user.client import Client
from acrn_dm.export.vhost_user.device import ExportedDevice
from acrn_dm.export.waiting import WaitingRoom


class Server(WaitingRoom):
    """The server of *exported* at *given*: for one client after another if it listens, else for that one; then it calls
    *done*.
    """

    def __init__(self, exported: ExportedDevice, given: socket.socket, done: Callable[[], None]) -> None:
        serve = functools.partial(Client, exported)
        super().__init__(exported.main_loop, given, serve, done, protocol="vhost-user", first="SET_OWNER")
