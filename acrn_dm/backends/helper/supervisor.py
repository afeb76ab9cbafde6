"""The supervisor of one device's process: starts it, tells how it ended, starts the next one as the user wishes.

Where this process has a broker, that one starts them. The next one is not started before the last one is gone: it may
still hold its image, and write there. One that has lost its connection and does not go within ``LINGERS_S`` is killed.
"""

import logging
import socket
import time

import attrs

from acrn_dm.backends import broker
from acrn_dm.backends.helper import Wish, child
from acrn_dm.backends.helper.child import Child
from acrn_dm.backends.wire.message import PeerError
from acrn_dm.base.errors import AcrnDmError, HostError
from acrn_dm.base.records import define

log = logging.getLogger(__name__)

START_S = 60.0  # what the first start may take: a machine that starts waits for it
LINGERS_S = 2.0
STABLE_S = 10.0  # who has served that long has not failed again, but anew
DRAIN_S = 10.0  # what a process may take for its last flush


@define(eq=False)
class Supervisor:
    """The ``Door`` of a device whose process is started from here. Its methods are called as a door's are: by one
    thread at a time, under the lock of the conversations.
    """

    name: str
    wish: Wish
    order: bytes = attrs.field(repr=False)
    _child: Child | None = attrs.field(default=None, init=False)
    _old: Child | None = attrs.field(default=None, init=False)  # without a connection, and perhaps not gone yet
    _left_at: float = attrs.field(default=0.0, init=False)  # when that lost its connection
    _since: float = attrs.field(default=0.0, init=False)  # when the present one began to serve
    _failures: int = attrs.field(default=0, init=False)  # in a row
    _started: bool = attrs.field(default=False, init=False)
    _told: str = attrs.field(default="", init=False)

    @property
    def place(self) -> str:
        """Which of its processes it is, the texts say."""
        return "in a process of its own"

    @property
    def patience(self) -> float:
        """``connect`` waits for its process itself."""
        return 0.0

    def problem(self) -> str | None:
        """Nothing has to be there before it is started."""
        return None

    def connect(self) -> socket.socket:
        """The connection to a process whose device is open; one is started if there is none. Raises HostError where
        there is none yet, PeerError where there will be none; at the first start what the process says, which may be
        a ConfigError.
        """
        first, self._started = not self._started, True
        self._see_off()
        if self._child is None:
            if self._given_up:
                raise PeerError(f"it is not started again ({self.wish.policy})")
            starter = broker.present()
            self._child = child.start(self.name, self.order) if starter is None else starter.start(self.name)
        present = self._child
        try:
            ready = present.is_ready(START_S if first else 0.0)
        except AcrnDmError as e:
            self._retire()
            if first:
                raise
            self._tell(str(e))
            raise HostError(str(e)) from e
        if not ready:
            raise HostError("it has not opened the device yet")
        self._since, self._told = time.monotonic(), ""
        return present.take()

    def lost(self, error: HostError) -> HostError:
        """How the process ended, where it has; a PeerError if it is not started again."""
        present = self._child
        if present is None or not present.taken:
            return error
        how = present.ended(child.LAST_WORDS_S)
        if time.monotonic() - self._since >= STABLE_S:
            self._failures = 0
        self._retire()
        text = str(error) if how is None else f"process {present.pid} {how}"
        if self._given_up:
            return PeerError(f"{text}; it is not started again ({self.wish.policy})")
        return PeerError(text) if isinstance(error, PeerError) else HostError(text)

    def close(self) -> None:
        """The connection is closed: the process writes what it has to, and goes, which is waited for. Idempotent."""
        for last in (self._child, self._old):
            if last is not None:
                last.hang_up()
                if last.ended(DRAIN_S) is None:
                    log.warning("%s: its process %d has work left; it ends by itself", self.name, last.pid)
                last.close()
        self._child = self._old = None

    @property
    def _given_up(self) -> bool:
        return self.wish.restarts is not None and self._failures > self.wish.restarts

    def _retire(self) -> None:
        """The present process is of no use any more."""
        assert self._child is not None
        self._child.hang_up()
        self._old, self._child, self._left_at = self._child, None, time.monotonic()
        self._failures += 1

    def _see_off(self) -> None:
        """Raises HostError as long as the last process has not gone."""
        old = self._old
        if old is None:
            return
        if old.ended() is None:
            if time.monotonic() - self._left_at >= LINGERS_S:
                old.kill()
            raise HostError(f"its process {old.pid} has not gone yet")
        old.close()
        self._old = None

    def _tell(self, text: str) -> None:
        """Say that a process did not get as far as serving; once, if it is the same each time."""
        if text != self._told:
            self._told = text
            log.warning("%s: its process could not be started again: %s", self.name, text)
