"""Commands for a device, as lines of text that a program or a person sends while the guest runs.

They come by a *script*, a file that is read once, or by a *control*: a FIFO if there is one at that path, else a UNIX
socket, made there for this user only, which answers each line with ``ok``, a text of the device's or ``error: ...``.
Empty lines and those that begin with ``#`` say nothing. ``wait SECONDS`` holds back what its sender says next, and
nobody else. All of it runs on one loop, a few lines a turn, so that the loop's other work goes on.
"""

import logging
import os
import socket
import stat
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from acrn_dm.base.errors import AcrnDmError, ConfigError, HostError
from acrn_dm.base.events.ioloop import IoLoop, Timer
from acrn_dm.base.files.claims import Claim, name_key
from acrn_dm.base.records import frozen
from acrn_dm.base.sockets.acceptor import Acceptor
from acrn_dm.base.sockets.unix_listener import UnixListener, problem

log = logging.getLogger(__name__)

MAX_LINE = 4096  # bytes
MAX_SCRIPT = 1 << 20  # bytes
MAX_CLIENTS = 4
MAX_WAIT_S = 3600.0
TURN = 32  # lines of one sender that are carried out before others have their turn
RECEIVE_BYTES = 4096


@frozen
class _Ours:
    """The device's side of a sender: who carries out its lines, on which loop, and who hears that it is done."""

    loop: IoLoop
    execute: Callable[[str], str]
    gone: Callable[["_Sender"], None]


class _Sender:
    """One who sends lines, which are carried out in order."""

    def __init__(self, ours: "_Ours", where: str) -> None:
        self.where = where
        self._ours, self._loop = ours, ours.loop
        self._lines: deque[str] = deque()
        self._pending: Timer | None = None  # the wait that holds the lines back, or the next turn
        self._number = 0
        self._closed = False

    @property
    def held(self) -> bool:
        """Whether lines wait, so that no more should be taken in."""
        return self._pending is not None

    def take(self, lines: Sequence[str]) -> None:
        """Carry *lines* out, after those that wait."""
        if self._closed:
            return
        self._lines.extend(lines)
        if self._pending is None:
            self._run()

    def close(self) -> None:
        """Forget what waits, and hear no more."""
        self._closed = True
        self._lines.clear()
        if self._pending is not None:
            self._pending.cancel()

    def answer(self, text: str) -> None:
        """Somebody's command was carried out, or not. Nobody hears of it where there is no way back, but errors."""
        if text.startswith("error: "):
            log.warning("%s: line %d: %s", self.where, self._number, text.removeprefix("error: "))

    def idle(self) -> None:
        """No line waits any more."""
        self._ours.gone(self)

    def _run(self) -> None:
        for _ in range(TURN):
            if not self._lines:
                self.idle()
                return
            self._one(self._lines.popleft().strip())
            if self._pending is not None:
                return
        self._pending = self._loop.call_later(0, self._next_turn)

    def _one(self, line: str) -> None:
        self._number += 1
        if not line or line.startswith("#"):
            return
        try:
            verb, _, rest = line.partition(" ")
            if verb == "wait":
                self._pending = self._loop.call_later(_seconds(rest), self._waited)
            else:
                self.answer(self._ours.execute(line) or "ok")
        except (ValueError, AcrnDmError) as e:
            self.answer(f"error: {e}")

    def _waited(self) -> None:
        self.answer("ok")
        self._next_turn()

    def _next_turn(self) -> None:
        self._pending = None
        self._run()


class _Reader(_Sender):
    """A sender behind a descriptor, which it owns: a FIFO; with *sock*, a client, who is answered."""

    def __init__(self, ours: _Ours, where: str, fd: int, sock: socket.socket | None = None) -> None:
        super().__init__(ours, where)
        self._fd, self._socket = fd, sock
        self._buffer = bytearray()
        self._watched = False
        self._answers = sock is not None
        self.idle()

    def close(self) -> None:
        super().close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._rest(fd)
            if self._socket is None:
                os.close(fd)
            else:
                self._socket.close()

    def answer(self, text: str) -> None:
        if self._socket is None:
            super().answer(text)
        if self._socket is None or not self._answers:
            return
        data = f"{text}\n".encode(errors="backslashreplace")
        try:
            self._answers = self._socket.send(data) == len(data)
        except OSError:  # it has gone, or does not read what it asked for; what it said is carried out
            self._answers = False

    def idle(self) -> None:
        if not self._watched and self._fd >= 0:
            self._watched = True
            self._loop.add(self._fd, self._readable)

    def _rest(self, fd: int) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove(fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        if not data or len(rest) > MAX_LINE:
            if data:
                self.answer(f"error: a line has at most {MAX_LINE} bytes")
            self._gone()
            return
        self._buffer = rest
        self.take([bytes(line).decode(errors="replace") for line in lines])
        if self.held:  # it waits in the kernel with what it says next
            self._rest(self._fd)

    def _gone(self) -> None:
        if self._socket is None:
            self._buffer.clear()  # a FIFO is everybody's: the next line counts again
        else:
            self._ours.gone(self)


class CommandLines:
    """The senders of commands for one device, *name* in messages.

    *execute* gets one line without its end, on the loop's thread, and returns the answer (empty: ``ok``); its
    ValueError or AcrnDmError is the sender's fault and goes back to it. Make it in ``__init__``, ``open`` and ``play``
    in ``realize`` or later, ``close`` in ``close``.
    """

    def __init__(self, name: str, execute: Callable[[str], str]) -> None:
        self.name = name
        self.execute = execute
        self._loop: IoLoop | None = None
        self._listener: UnixListener | None = None
        self._acceptor: Acceptor | None = None
        self._senders: list[_Sender] = []

    def check(self, *, script: Path | None = None, control: Path | None = None) -> list[str]:
        """What is wrong with these paths, one line each; changes nothing."""
        lines = []
        if script is not None and (script.is_dir() or not os.access(script, os.R_OK)):
            lines.append(f"{self.name}: script {script} can't be read")
        why = None if control is None or _is_fifo(control) else problem(control)
        return lines if why is None else [*lines, f"{self.name}: control {control}: {why}"]

    def claims(self, control: Path | None) -> list[Claim]:
        """What ``open`` uses, which no other device can have."""
        return [] if control is None else [Claim(key=name_key(control), what=f"control {control}")]

    def open(self, loop: IoLoop, control: Path) -> None:
        """Take lines from the FIFO or socket *control* until ``close``. Raises ConfigError and HostError."""
        self._loop = loop
        if _is_fifo(control):
            try:
                fd = os.open(control, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # a writer of our own: it never ends
            except OSError as e:
                raise HostError.from_os(f"opening {control}", e) from e
            self._senders.append(_Reader(self._ours(loop), f"{self.name}: {control}", fd))
            return
        self._listener = UnixListener(control, "control")
        self._acceptor = Acceptor(loop, self._listener.socket, f"{self.name}: {control}", self._accepted)

    def play(self, loop: IoLoop, script: Path) -> None:
        """Carry out the lines of the file *script*. Any thread. Raises ConfigError and HostError."""
        try:
            with script.open("rb") as file:
                data = file.read(MAX_SCRIPT + 1)
        except OSError as e:
            raise HostError.from_os(f"reading {script}", e) from e
        if len(data) > MAX_SCRIPT:
            raise ConfigError(f"has more than {MAX_SCRIPT} bytes", option="script", value=str(script))
        sender = _Sender(self._ours(loop), f"{self.name}: {script}")
        self._loop = loop
        self._senders.append(sender)
        loop.call_soon(lambda: sender.take(data.decode(errors="replace").split("\n")))

    def close(self) -> None:
        """Take no more lines; when this returns ``execute`` is not running (unless we are in it). Idempotent."""
        if self._loop is None:
            return
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None:
            acceptor.close()
        with self._loop.held():
            senders, self._senders = self._senders, []
            for sender in senders:
                sender.close()
        if self._listener is not None:
            self._listener.close()

    def _ours(self, loop: IoLoop) -> _Ours:
        return _Ours(loop, self.execute, self._gone)

    def _gone(self, sender: _Sender) -> None:
        """A client has left, or is made to."""
        if sender in self._senders:
            self._senders.remove(sender)
            sender.close()
        if self._acceptor is not None:
            self._acceptor.resume()

    def _accepted(self, client: socket.socket) -> None:
        assert self._loop is not None
        where = f"{self.name}: control"
        self._senders.append(_Reader(self._ours(self._loop), where, client.fileno(), client))
        if self._acceptor is not None and len(self._senders) >= MAX_CLIENTS:
            self._acceptor.pause()


def _is_fifo(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= MAX_WAIT_S:
        raise ValueError(f"wait {text}: expected 0 to {MAX_WAIT_S:.0f} seconds")
    return seconds
