"""Generations of a guest's memory: one map of it after another, and those whose threads walk the one of the moment.

A ring keeps pointers into the memory and asks nobody. So before the map becomes another its users stop, and go on with
the new one. What the host still has of a user that could not stop in time keeps the old mappings until it comes back.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

log = logging.getLogger(__name__)


class MapUser(Protocol):
    """Somebody whose threads walk ``GuestMemory.map`` without asking. Called on control threads."""

    @property
    def busy(self) -> bool:
        """Whether the host still uses the memory for something that was given up. Any thread."""

    def leave_map(self) -> None:
        """Stop, if that is not so already, between two requests: when this returns nothing of the user's touches the
        memory, unless it is ``busy``. It waits for a bounded time.
        """

    def enter_map(self) -> None:
        """Go on with what ``GuestMemory.map`` is now, if it has stopped."""


def _at_once(enter: Callable[[], None]) -> None:
    enter()


class Generations:
    """The users of one memory, and what earlier generations have left. Control threads, one at a time.

    *later* is called at the end of a change, and calls what it is given soon, once for all changes until then: what is
    done in several steps need not be seen half-way.
    """

    def __init__(self, later: Callable[[Callable[[], None]], object] = _at_once) -> None:
        self._later = later
        self._waiting = False  # *later* was told
        self._users: list[MapUser] = []
        self._left: list[Callable[[], None]] = []

    def join(self, user: MapUser) -> None:
        """*user* is told of each change from now on."""
        self._users.append(user)

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Within the block nobody walks the map, which may become another."""
        for user in self._users:
            user.leave_map()
        try:
            yield
        finally:
            if not self._waiting:
                self._waiting = True
                self._later(self._enter)

    def _enter(self) -> None:
        self._waiting = False
        for user in self._users:
            user.enter_map()

    def release(self, close: Callable[[], None]) -> None:
        """Call *close*, which gives back a part of an earlier generation, within a change: now, or as soon as nobody
        has anything of it. Whoever still has raises BufferError there, or is ``busy``.
        """
        self._left.append(close)
        self.sweep()

    def sweep(self) -> None:
        """Give back what nobody has any more."""
        if any(user.busy for user in self._users):
            return
        while self._left:
            try:
                self._left[0]()
            except BufferError as e:  # what comes behind it is what it has buffers of
                log.debug("memory is given back later: %s", e)
                return
            del self._left[0]
