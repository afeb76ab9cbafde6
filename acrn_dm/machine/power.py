"""The power of one machine: its state, what happens to it, and one table of what each event does in each state.

Events come from any thread (a vCPU asks for a reset, the clock's alarm ends a sleep, a signal presses the button); one
lock takes them in order. Only the main thread acts on the state (``machine.machine``): it stops, resets and starts what
the state says, and tells here when that is done. So nothing can be lost between what was asked and what is done.
"""

import enum
import threading
from collections.abc import Callable

import attrs

from acrn_dm.base.records import define, frozen
from acrn_dm.management.controls import StopReason


class State(enum.Enum):
    """The state of the machine, from off to off."""

    OFF = "off"  # nothing has run yet
    RUNNING = "running"  # the vCPUs run, or stand still for a moment
    SUSPENDING = "suspending"  # the guest has asked for S3; vCPUs and devices come to rest
    ASLEEP = "asleep"  # in S3
    WAKING = "waking"  # the sleep is over, perhaps before it began; the vCPUs are yet to start
    RESETTING = "resetting"  # a reset has been asked for
    RESTARTING = "restarting"  # the vCPUs stand still, all becomes as after power-on; they are yet to start
    STOPPING = "stopping"  # for good


class Event(enum.Enum):
    """The events that change it."""

    START = "start"  # the vCPUs are about to run
    SUSPEND = "suspend"  # the guest asks for S3
    REST = "rest"  # vCPUs and devices are at rest
    WAKE = "wake"  # an alarm, a manager or the user ends the sleep
    RESET = "reset"  # the guest asks for a reset, or needs one
    RESTART = "restart"  # the vCPUs stand still for a reset: whatever they asked for before is done by it
    STOP = "stop"  # off for good: the guest's wish, a manager's, or an error
    PRESS = "press"  # the power button, for the first time
    PRESS_AGAIN = "press again"


class Action(enum.Enum):
    """The action that is due in a state that stays."""

    TELL_GUEST = "tell the guest"  # that the button was pressed: it decides


_S, _E = State, Event

# A pair that is missing changes nothing. Four rules: a stop for good outdoes everything, and the first one counts; a
# reset outdoes a sleep; who sleeps, or is about to, is woken by the button, and hears nothing else of it; a wake that
# comes before the sleep shortens it to nothing.
TABLE: dict[tuple[State, Event], State | Action] = {
    (_S.OFF, _E.START): _S.RUNNING,
    (_S.OFF, _E.RESET): _S.RESETTING,
    (_S.OFF, _E.RESTART): _S.RESTARTING,
    (_S.OFF, _E.STOP): _S.STOPPING,
    (_S.OFF, _E.PRESS): Action.TELL_GUEST,
    (_S.OFF, _E.PRESS_AGAIN): _S.STOPPING,
    (_S.RUNNING, _E.SUSPEND): _S.SUSPENDING,
    (_S.RUNNING, _E.RESET): _S.RESETTING,
    (_S.RUNNING, _E.RESTART): _S.RESTARTING,
    (_S.RUNNING, _E.STOP): _S.STOPPING,
    (_S.RUNNING, _E.PRESS): Action.TELL_GUEST,
    (_S.RUNNING, _E.PRESS_AGAIN): _S.STOPPING,
    (_S.SUSPENDING, _E.REST): _S.ASLEEP,
    (_S.SUSPENDING, _E.WAKE): _S.WAKING,
    (_S.SUSPENDING, _E.RESET): _S.RESETTING,
    (_S.SUSPENDING, _E.RESTART): _S.RESTARTING,
    (_S.SUSPENDING, _E.STOP): _S.STOPPING,
    (_S.SUSPENDING, _E.PRESS): _S.WAKING,
    (_S.SUSPENDING, _E.PRESS_AGAIN): _S.WAKING,
    (_S.ASLEEP, _E.WAKE): _S.WAKING,
    (_S.ASLEEP, _E.RESET): _S.RESETTING,
    (_S.ASLEEP, _E.RESTART): _S.RESTARTING,
    (_S.ASLEEP, _E.STOP): _S.STOPPING,
    (_S.ASLEEP, _E.PRESS): _S.WAKING,
    (_S.ASLEEP, _E.PRESS_AGAIN): _S.WAKING,
    (_S.WAKING, _E.START): _S.RUNNING,
    (_S.WAKING, _E.RESET): _S.RESETTING,
    (_S.WAKING, _E.RESTART): _S.RESTARTING,
    (_S.WAKING, _E.STOP): _S.STOPPING,
    (_S.WAKING, _E.PRESS): Action.TELL_GUEST,
    (_S.WAKING, _E.PRESS_AGAIN): _S.STOPPING,
    (_S.RESETTING, _E.RESET): _S.RESETTING,  # the last one says of which kind
    (_S.RESETTING, _E.RESTART): _S.RESTARTING,
    (_S.RESETTING, _E.STOP): _S.STOPPING,
    (_S.RESETTING, _E.PRESS): Action.TELL_GUEST,
    (_S.RESETTING, _E.PRESS_AGAIN): _S.STOPPING,
    (_S.RESTARTING, _E.START): _S.RUNNING,
    (_S.RESTARTING, _E.RESET): _S.RESETTING,
    (_S.RESTARTING, _E.STOP): _S.STOPPING,
    (_S.RESTARTING, _E.PRESS): Action.TELL_GUEST,
    (_S.RESTARTING, _E.PRESS_AGAIN): _S.STOPPING,
    (_S.STOPPING, _E.PRESS): Action.TELL_GUEST,
}

_REQUESTED = frozenset({State.SUSPENDING, State.RESETTING, State.STOPPING})  # somebody asked for these
_EVENTS = {StopReason.SUSPEND: Event.SUSPEND, StopReason.RESET: Event.RESET}  # every other reason stops for good


@frozen(kw_only=True)
class Request:
    """The request that was made; *hold*: the vCPU that asks does not run on; *full*: of resets, as if power had been
    off.
    """

    reason: StopReason
    detail: str = ""
    hold: bool = False
    full: bool = True


@define(eq=False)
class Power:
    """One machine's power; see the module. *changed* is called after each event, on the thread that brings it."""

    changed: Callable[[], object] = lambda: None
    state: State = attrs.field(default=State.OFF, init=False)
    reboots: int = attrs.field(default=0, init=False)
    asked: bool = attrs.field(default=False, init=False)  # the guest was told of the button, at any time
    holds_vcpu: bool = attrs.field(default=False, init=False)  # a vCPU that has been answered does not run on
    _request: Request | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @property
    def over(self) -> bool:
        """Whether the machine stops for good."""
        return self.state is State.STOPPING

    @property
    def sleeps(self) -> bool:
        """Whether the guest sleeps, or is about to and has not been woken."""
        return self.state in (State.SUSPENDING, State.ASLEEP)

    @property
    def reason(self) -> StopReason | None:
        """What is asked for and not yet done."""
        with self._lock:
            return self._request.reason if self._request is not None and self.state in _REQUESTED else None

    @property
    def detail(self) -> str:
        """More about ``reason``, in words; empty when there is no more to say."""
        request = self._request
        return "" if request is None else request.detail

    @property
    def full_reset(self) -> bool:
        """Whether the reset that was asked for is a power cycle, as it is unless the guest says otherwise."""
        request = self._request
        return request is None or request.full

    def unless_stopped(self) -> Callable[[], bool]:
        """A question that is answered with no once somebody stops the machine for good, from now on."""
        over = self.over
        return lambda: self.over is over

    def request(self, reason: StopReason, detail: str = "", *, hold: bool = False, full: bool = True) -> None:
        """Ask for a sleep, a reset, or the end."""
        request = Request(reason=reason, detail=detail, hold=hold, full=full)
        self._happens(_EVENTS.get(reason, Event.STOP), request)

    def wake(self) -> bool:
        """End the guest's sleep; False when it does not sleep, nor is about to."""
        return self._happens(Event.WAKE) is not None

    def press(self) -> bool:
        """Press the power button; return whether the guest is to be told. The second time it is forced off."""
        forced = Request(reason=StopReason.FORCED, detail="asked a second time")
        with self._lock:
            step = self._advance(Event.PRESS_AGAIN if self.asked else Event.PRESS, forced)
            self.asked = self.asked or step is Action.TELL_GUEST
        self.changed()
        return step is Action.TELL_GUEST

    def started(self) -> None:
        """The vCPUs are about to run."""
        with self._lock:
            restarted = self.state is State.RESTARTING
            if self._advance(Event.START) is State.RUNNING:
                self._request = None
                self.reboots += restarted
            self.holds_vcpu = False

    def at_rest(self) -> None:
        """VCPUs and devices are at rest: the guest sleeps from now on, if it is still to."""
        self._happens(Event.REST)

    def restarting(self) -> None:
        """The vCPUs stand still for a reset."""
        self._happens(Event.RESTART)

    def _happens(self, event: Event, request: Request | None = None) -> State | Action | None:
        with self._lock:
            step = self._advance(event, request)
        self.changed()
        return step

    def _advance(self, event: Event, request: Request | None = None) -> State | Action | None:
        """Take one step, under the lock; None where the table has none."""
        step = TABLE.get((self.state, event))
        if isinstance(step, State):
            self.state = step
            if request is not None and step in _REQUESTED:
                self._request, self.holds_vcpu = request, request.hold
        return step
