"""The machine's events for the command monitor: the clock was set, power-off, triple fault; paused, and going on.

One a second of each kind at most: a guest can set its clock as often as it likes. Setting the clock takes several
writes; they become one event when a second has passed since the last. A pause is told each time: what ends it is a
command.
"""

import enum
import errno
import os
from collections.abc import Callable

from acrn_dm.base.events.ioloop import IoLoop, Timer
from acrn_dm.contract.resources import HostFault

WINDOW_S = 1.0

Event = dict[str, int | str]


class VmEventKind(enum.IntEnum):
    """``vm_event`` of the JSON object (ACRN hypervisor/include/public/acrn_common.h; from 256 on our own)."""

    CLOCK_SET = 0
    POWEROFF = 1
    TRIPLE_FAULT = 2
    PAUSED = 256
    RESUMED = 257


class Events:
    """The sender of events. On the loop's thread, but for what says otherwise."""

    def __init__(self, loop: IoLoop, send: Callable[[Event], None], clock: Callable[[], float] | None = None) -> None:
        self._loop = loop
        self._send = send
        self._clock = loop.clock.monotonic if clock is None else clock
        self.standing: list[Event] = []  # why the guest stands still now
        self._last: dict[VmEventKind, float] = {}
        self._before = 0  # the guest's clock before the first of several changes
        self._change = 0
        self._timer: Timer | None = None

    def happened(self, kind: VmEventKind, **data: int) -> None:
        """Tell, unless the last of this kind was just now."""
        now = self._clock()
        if now - self._last.get(kind, -WINDOW_S) < WINDOW_S:
            return
        self._last[kind] = now
        self._send({"vm_event": int(kind), **data})

    def paused(self, fault: HostFault) -> None:
        """The guest stands still because of *fault*."""
        event: Event = {
            "vm_event": int(VmEventKind.PAUSED),
            "device": fault.device,
            "operation": fault.operation,
            "errno": errno.errorcode.get(fault.err, str(fault.err)),
            "reason": os.strerror(fault.err),
        }
        self.standing.append(event)
        self._send(event)

    def resumed(self) -> None:
        """The guest goes on, or is off."""
        self.standing.clear()
        self._send({"vm_event": int(VmEventKind.RESUMED)})

    def clock_set(self, before: int, after: int) -> None:
        """The guest's clock went from *before* to *after*, in seconds since 1970. Any thread."""
        self._loop.call_soon(lambda: self._note(before, after))

    def _note(self, before: int, after: int) -> None:
        if self._timer is None:
            self._before, self._change = before, 0
        else:
            self._timer.cancel()
        self._change += after - before
        self._timer = self._loop.call_later(WINDOW_S, self._settled)

    def _settled(self) -> None:
        self._timer = None
        if self._change:
            self.happened(VmEventKind.CLOCK_SET, delta_time=self._change, last_time=self._before)
