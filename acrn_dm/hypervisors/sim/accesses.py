"""The accesses of a guest that are under way, and who waits until there is none."""

import threading

import attrs

from acrn_dm.base.records import define
from acrn_dm.hypervisors.lifecycle import Lifecycle, State


@define(eq=False)
class Accesses:
    """A context in which an access is made, by any thread; it begins only while the machine runs."""

    _life: Lifecycle
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False)  # ``_threads`` and the state
    _none: threading.Condition = attrs.field(init=False)
    _threads: list[int] = attrs.field(factory=list, init=False)  # an access inside another one's is there twice
    _waiting: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._none = threading.Condition(self._lock)

    def __enter__(self) -> None:
        """Begin one. Raises RuntimeError unless the machine runs."""
        with self._lock:
            if self._life.state is not State.RUNNING:
                self._life.require("an access of the guest", State.RUNNING)
            self._threads.append(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads.remove(threading.get_ident())
            if self._waiting:
                self._none.notify_all()

    def rest(self, state: State, allowed: tuple[State, ...]) -> None:
        """Go to *state* from one of the *allowed* ones, and wait until no access is under way."""
        with self._lock:
            if self._life.state in allowed:
                self._life.state = state
            self._waiting += 1
            try:
                self._none.wait_for(lambda: not self._threads)
            finally:
                self._waiting -= 1

    def require_outside(self, call: str) -> None:
        """Raise RuntimeError when this thread is in one."""
        if threading.get_ident() in self._threads:
            raise RuntimeError(f"{call} waits for the vCPU threads and can't be called on one")

    def go_on(self) -> None:
        """Allow accesses again if they were paused."""
        with self._lock:
            if self._life.state is State.PAUSED:
                self._life.state = State.RUNNING
