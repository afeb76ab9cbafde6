"""The guest stands still because the host failed a device, until somebody has mended that and lets it go on.

The vCPUs stop; devices go on, with what the guest gave them before. Nobody waits: the main loop runs meanwhile, so that
the machine can be resumed, powered off and asked for its state.
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import Protocol

import attrs

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define
from acrn_dm.contract.resources import HostFault

log = logging.getLogger(__name__)


class Witness(Protocol):
    """The receiver of what happens."""

    def paused(self, fault: HostFault) -> None:
        """The guest stands still because of *fault*; there may be several, one behind the other."""

    def resumed(self) -> None:
        """It goes on, or stops for good."""


@define(eq=False)
class Standstill:
    """The state of one machine: running, or standing still and why. What is not said to be for any thread is for the
    main loop's.
    """

    loop: IoLoop
    possible: Callable[[], bool] = lambda: False  # whether somebody could let the guest go on. Any thread
    standing: bool = attrs.field(default=False, init=False)
    _faults: list[HostFault] = attrs.field(factory=list, init=False)
    _untold: list[HostFault] = attrs.field(factory=list, init=False)
    _witness: Witness | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @property
    def wanted(self) -> bool:
        """Whether the vCPUs are to stand still. Any thread."""
        return bool(self._faults)

    def ask(self, fault: HostFault) -> None:
        """Let the vCPUs stand still soon, because of *fault*. Any thread."""
        with self._lock:
            self._faults.append(fault)
            self._untold.append(fault)
        self.loop.call_soon(self._tell)

    def pause_guest(self, fault: HostFault) -> bool:
        """``ask``; False where it is not ``possible``: then the guest has to be told. Any thread."""
        if not self.possible():
            return False
        self.ask(fault)
        return True

    def resume(self) -> bool:
        """Let them go on, and the devices try again; False when they do not stand still."""
        if not self.standing:
            return False
        for fault in self._take():
            fault.resumed()
        return True

    def clear(self) -> None:
        """The devices are reset: what they asked for is void."""
        self._take()

    def hold(self, witness: Witness, over: Callable[[], bool]) -> bool:
        """With the vCPUs stopped: step the loop until ``resume``, or until it is *over*: then return False. Not called
        by a handler of the loop.
        """
        self.standing, self._witness = True, witness
        self._tell()
        while self.wanted and not over():
            self.loop.step(None)
        self.standing, self._witness = False, None
        witness.resumed()
        if over():
            return False
        log.info("the guest goes on")
        return True

    def _tell(self) -> None:
        """Once the vCPUs stand still: who resumes them before would find nothing to resume."""
        if self._witness is None:
            return
        with self._lock:
            faults, self._untold = self._untold, []
        for fault in faults:
            reason = os.strerror(fault.err)
            log.error("%s: %s: %s; the guest is paused until it is resumed", fault.device, fault.operation, reason)
            self._witness.paused(fault)

    def _take(self) -> list[HostFault]:
        with self._lock:
            taken, self._faults, self._untold = self._faults, [], []
        return taken
