"""The interrupt storm monitor: what the user asks for, and what a hypervisor that has one can do."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from acrn_dm.base.records import frozen


class PendingCall(Protocol):
    """A call that a loop has promised; ``base.events.ioloop.Timer`` in a machine."""

    def cancel(self) -> None:
        """Never run the callback."""


CallLater = Callable[[float, Callable[[], None]], PendingCall]  # seconds from now, callback


@frozen(kw_only=True)
class InterruptMonitor:
    """``--intr_monitor``: a passed-through device with more interrupts a second than *threshold*, looked at every
    *period_s*, gets them delayed by *delay_ms* each, for *duration_ms*.
    """

    threshold: int
    period_s: int
    delay_ms: int
    duration_ms: int


@runtime_checkable
class InterruptWatcher(Protocol):
    """A hypervisor that can look out for storms of passed-through interrupts (ACRN)."""

    def watch_interrupts(self, settings: InterruptMonitor, call_later: CallLater) -> None:
        """Look out from now on, until the machine is closed; *call_later* is the main loop's."""
