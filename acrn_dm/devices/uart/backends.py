"""Backends of serial ports: ``stdio``, ``tcp:PORT``, a tty's path, or nothing."""

import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.files.claims import Claim, path_key
from acrn_dm.base.sockets.acceptor import Acceptor
from acrn_dm.devices.loopwork import poll
from acrn_dm.devices.terminal import look
from acrn_dm.devices.terminal.line import open_terminal
from acrn_dm.devices.terminal.stdio import Terminal
from acrn_dm.devices.uart.stream import Stream
from acrn_dm.devices.uart.uart16550 import Uart16550

TCP = "tcp:"
HOST = "127.0.0.1"  # a serial console asks for no password: it is not offered to the network


class Backend(Protocol):
    """An open backend."""

    def close(self) -> None:
        """Give everything back. Idempotent; not under the UART's lock."""


class NoBackend:
    """A port with nothing behind it."""

    def close(self) -> None:
        """Nothing to give back."""


class StdioBackend:
    """The terminal we run on, in raw mode; Ctrl-a x calls *on_quit*."""

    def __init__(
        self, uart: Uart16550, loop: IoLoop, terminal: Terminal, on_quit: Callable[[], None], *, wait: bool = False
    ) -> None:
        self._terminal = terminal
        self._stream = Stream(uart, loop, rx=terminal.input, tx=terminal.output, wait=wait)
        uart.line = self._stream
        terminal.start(loop, on_quit=on_quit)

    def close(self) -> None:
        """Stop, then restore the terminal."""
        self._stream.close()
        self._terminal.close()


class TtyBackend:
    """A terminal device of the host."""

    def __init__(self, uart: Uart16550, loop: IoLoop, path: str, *, wait: bool = False) -> None:
        """Open *path*. Raises ConfigError when it is no terminal, HostError when it can't be opened."""
        problem = look.problem(path)
        if problem is not None:
            raise ConfigError(problem, option="-l", value=path)
        try:
            self._line = open_terminal(path, path)
        except OSError as e:
            raise HostError.from_os(f"opening {path} for a serial port", e) from e
        self._stream = Stream(uart, loop, rx=self._line.input, tx=self._line.output, wait=wait)
        uart.line = self._stream
        self._line.start(loop)

    def close(self) -> None:
        """Stop, restore and close the terminal."""
        self._stream.close()
        self._line.close()


class TcpBackend:
    """A server on the loopback interface for one client at a time; without one, output vanishes."""

    def __init__(self, uart: Uart16550, loop: IoLoop, port: int, *, wait: bool = False) -> None:
        """Listen on *port*. Raises HostError."""
        self._uart, self._loop, self._wait = uart, loop, wait
        self._client: socket.socket | None = None
        self._stream: Stream | None = None
        self._server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._server.bind((HOST, port))
            self._server.listen(1)
        except OSError as e:
            self._server.close()
            raise HostError.from_os(f"listening on {HOST}:{port} for a serial port", e) from e
        self._acceptor = Acceptor(loop, self._server, f"{HOST}:{port}", self._accepted)

    def close(self) -> None:
        """Stop listening and hang up."""
        self._acceptor.close()
        self._server.close()
        self._hang_up()

    def _accepted(self, client: socket.socket) -> None:
        if self._client is not None and not self._has_left(self._client):
            client.close()
            return
        self._hang_up()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = client
        fd = client.fileno()
        self._stream = Stream(self._uart, self._loop, rx=fd, tx=fd, on_end=self._hang_up, wait=self._wait)
        self._uart.line = self._stream

    def _has_left(self, client: socket.socket) -> bool:
        """Whether *client* sends no more, which is not noticed while the guest does not read what it sent before."""
        return bool(poll(client.fileno(), select.POLLRDHUP))

    def _hang_up(self) -> None:
        if self._client is not None and self._stream is not None:
            self._stream.close()
            self._client.close()
            self._client = None


def check_backend(text: str) -> str | None:
    """Why *text* can't be opened on this host, as far as looking tells."""
    if text in ("", "stdio"):
        return None
    return _tcp_problem(int(text.removeprefix(TCP))) if text.startswith(TCP) else look.problem(text)


def claims(text: str) -> list[Claim]:
    """What only one port can have."""
    if text in ("", "stdio"):
        return []
    if text.startswith(TCP):
        return [Claim(key=(text,), what=f"port {text.removeprefix(TCP)} of {HOST}")]
    return [Claim(key=path_key(Path(text)), what=f"terminal {text}")]


def open_backend(
    text: str, owner: str, uart: Uart16550, loop: IoLoop, on_quit: Callable[[], None], *, wait: bool = False
) -> Backend:
    """Open the backend that *text* names for serial port *owner*; with *wait* the guest waits for its reader. Raises
    ConfigError or HostError.
    """
    if not text:
        return NoBackend()
    if text == "stdio":
        return StdioBackend(uart, loop, Terminal(owner), on_quit, wait=wait)
    if text.startswith(TCP):
        return TcpBackend(uart, loop, int(text.removeprefix(TCP)), wait=wait)
    return TtyBackend(uart, loop, text, wait=wait)


def _tcp_problem(port: int) -> str | None:
    """As far as an address tells that is taken for a moment and not listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as e:
            return f"listening on {HOST}:{port}: {e.strerror}"
    return None
