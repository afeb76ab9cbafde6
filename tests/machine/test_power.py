"""machine.power: what every event does in every state, and what is remembered of it."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from acrn_dm.machine import power as power_module
from acrn_dm.machine.power import TABLE, Action, Event, Power, State
from acrn_dm.management.controls import StopReason

# Written from what a machine has to do, not from the table. "." nothing changes, "tell": the guest is told of the
# button, and the state stays.
#
#   start        lets run what has not run, has been reset, or has been woken; it takes back no request: who asked for a
#                reset or the end before the boot gets it after
#   suspend      only who runs can ask for it; a reset or the end that was asked for first is not forgotten for it
#   rest         is the moment of falling asleep, but for who has been woken by then
#   wake         ends a sleep, also the one that is about to begin: else it would be lost
#   reset        outdoes a sleep, and may be asked for again while one is done; nothing outdoes the end
#   restart      is what the main thread does at a reset, also without anybody's asking (the test kit)
#   stop         is for good, from everywhere, and the first one counts
#   press        is for the guest to answer; one that sleeps, or is about to, hears no button and is woken instead
#   press again  forces off who was told before; a sleeper is woken all the same
MATRIX = """
              off         running     suspending  asleep      waking      resetting   restarting  stopping
start         running     .           .           .           running     .           running     .
suspend       .           suspending  .           .           .           .           .           .
rest          .           .           asleep      .           .           .           .           .
wake          .           .           waking      waking      .           .           .           .
reset         resetting   resetting   resetting   resetting   resetting   resetting   resetting   .
restart       restarting  restarting  restarting  restarting  restarting  restarting  .           .
stop          stopping    stopping    stopping    stopping    stopping    stopping    stopping    .
press         tell        tell        waking      waking      tell        tell        tell        tell
press_again   stopping    stopping    waking      waking      stopping    stopping    stopping    .
"""

EVENTS: dict[str, Callable[[Power], Any]] = {
    "start": Power.started,
    "suspend": lambda power: power.request(StopReason.SUSPEND, hold=True),
    "rest": Power.at_rest,
    "wake": Power.wake,
    "reset": lambda power: power.request(StopReason.RESET),
    "restart": Power.restarting,
    "stop": lambda power: power.request(StopReason.POWEROFF),
    "press": Power.press,
    "press_again": Power.press,  # of one who was told already
}
ROUTES = {
    "off": (),
    "running": ("start",),
    "suspending": ("start", "suspend"),
    "asleep": ("start", "suspend", "rest"),
    "waking": ("start", "suspend", "rest", "wake"),
    "resetting": ("start", "reset"),
    "restarting": ("start", "reset", "restart"),
    "stopping": ("start", "stop"),
}


def expectations() -> list[tuple[str, str, str]]:
    """(state, event, what is to come of it), for every pair."""
    head, *rows = [line.split() for line in MATRIX.strip().splitlines()]
    return [(state, row[0], cell) for row in rows for state, cell in zip(head, row[1:], strict=True)]


def at(state: str, *, told: bool = False) -> Power:
    """A machine's power in *state*, led there by events; the guest may have been *told* of the button before."""
    power = Power()
    if told:
        power.press()
    for event in ROUTES[state]:
        EVENTS[event](power)
    assert power.state is State(state)
    return power


@pytest.mark.parametrize(("state", "event", "then"), expectations())
def test_event_in_state(state: str, event: str, then: str) -> None:
    power = at(state, told=event == "press_again")
    result = EVENTS[event](power)
    assert power.state is State(state if then in (".", "tell") else then)
    if event.startswith("press"):
        assert result is (then == "tell")


def test_matrix_has_every_pair() -> None:
    pairs = [(state, event.replace("_", " ")) for state, event, _ in expectations()]
    assert sorted(pairs) == sorted((state.value, event.value) for state in State for event in Event)


def test_table_says_nothing_of_pairs_that_change_nothing() -> None:
    """So that what it has is what happens."""
    said = {(state.value, event.value.replace(" ", "_")) for state, event in TABLE}
    assert said == {(state, event) for state, event, then in expectations() if then != "."}


def test_first_reason_to_stop_for_good_counts() -> None:
    power = at("running")
    power.request(StopReason.ERROR, "first")
    power.request(StopReason.FORCED, "second")
    power.request(StopReason.RESET, "third")
    assert (power.reason, power.detail, power.over) == (StopReason.ERROR, "first", True)


def test_second_press_says_that_it_forced() -> None:
    power = at("running", told=True)
    power.press()
    assert (power.reason, power.detail) == (StopReason.FORCED, "asked a second time")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("off", None),
        ("running", None),
        ("suspending", StopReason.SUSPEND),
        ("asleep", None),
        ("waking", None),
        ("resetting", StopReason.RESET),
        ("restarting", None),
        ("stopping", StopReason.POWEROFF),
    ],
)
def test_reason_is_what_was_asked_for_and_is_not_done_yet(state: str, reason: StopReason | None) -> None:
    assert at(state).reason is reason


@pytest.mark.parametrize("state", ROUTES)
def test_sleeps_from_the_guests_wish_to_the_wake(state: str) -> None:
    assert at(state).sleeps is (state in ("suspending", "asleep"))


@pytest.mark.parametrize("state", ROUTES)
def test_wake_tells_whether_it_ended_a_sleep(state: str) -> None:
    assert at(state).wake() is (state in ("suspending", "asleep"))


def test_reset_is_full_unless_the_guest_says_otherwise_and_the_last_one_counts() -> None:
    power = at("running")
    assert power.full_reset, "nobody has asked: a triple fault, or the test kit"
    power.request(StopReason.RESET, full=False)
    assert not power.full_reset
    power.request(StopReason.RESET, full=True)
    assert power.full_reset


def test_next_reset_is_full_again() -> None:
    power = at("running")
    power.request(StopReason.RESET, full=False)
    power.restarting()
    power.started()
    assert power.full_reset


def test_vcpu_is_held_from_its_request_to_the_next_start() -> None:
    power = at("running")
    assert not power.holds_vcpu
    power.request(StopReason.RESET, hold=True, full=False)
    power.restarting()
    assert power.holds_vcpu
    power.started()
    assert not power.holds_vcpu


def test_request_that_changes_nothing_holds_no_vcpu() -> None:
    power = at("stopping")
    power.request(StopReason.SUSPEND, hold=True)
    assert not power.holds_vcpu


def test_reboot_is_counted_when_the_guest_starts_again() -> None:
    power = at("restarting")
    assert power.reboots == 0
    power.started()
    power.started()
    assert power.reboots == 1


def test_wake_is_no_reboot() -> None:
    power = at("waking")
    power.started()
    assert power.reboots == 0


def test_what_was_asked_for_is_over_with_the_start() -> None:
    power = at("running")
    power.request(StopReason.RESET, "triple fault")
    power.restarting()
    power.started()
    assert power.detail == ""


def test_guest_that_was_told_stays_told_across_a_reset() -> None:
    power = at("running")
    power.press()
    for event in ("reset", "restart", "start"):
        EVENTS[event](power)
    assert power.asked
    power.press()
    assert power.over


def test_press_that_wakes_has_told_nobody() -> None:
    power = at("asleep")
    power.press()
    assert not power.asked


@pytest.mark.parametrize("stops", [True, False])
def test_question_is_answered_with_no_once_somebody_stops_it_for_good(stops: bool) -> None:
    power = at("resetting")
    go_on = power.unless_stopped()
    power.request(StopReason.FORCED if stops else StopReason.RESET)
    assert go_on() is not stops


@pytest.mark.parametrize("event", [event for event in EVENTS if event != "start"])
def test_main_loop_is_told_of_each_event_without_the_lock(event: str) -> None:
    told: list[bool] = []
    power = at("running", told=event == "press_again")
    power.changed = lambda: told.append(power._lock.locked())
    EVENTS[event](power)
    assert told == [False]


class Watched(dict[tuple[State, Event], State | Action]):
    """The table, of which every use must be made under the lock."""

    power: Power
    uses = 0

    def get(self, *pair: Any) -> Any:
        self.uses += 1
        assert self.power._lock.locked()
        return super().get(*pair)


@pytest.mark.parametrize("event", EVENTS)
def test_every_step_is_taken_under_the_lock(event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    power = at("running", told=event == "press_again")
    table = Watched(TABLE)
    table.power = power
    monkeypatch.setattr(power_module, "TABLE", table)
    EVENTS[event](power)
    assert table.uses == 1


def together(*work: Callable[[], object]) -> None:
    """Do all of it at once, each on a thread."""
    start = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> None:
        start.wait()
        one()

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_many_who_stop_it_at_once_one_counts_with_reason_and_detail() -> None:
    reasons = (StopReason.POWEROFF, StopReason.ERROR, StopReason.FORCED, StopReason.DEBUG_EXIT)
    for _ in range(50):
        power = at("running")
        together(*(functools.partial(power.request, reason, reason.value) for reason in reasons))
        assert power.reason is not None
        assert power.detail == power.reason.value


def press_into(power: Power, told: list[bool]) -> None:
    told.append(power.press())


def test_of_many_who_press_at_once_one_tells_the_guest() -> None:
    for _ in range(50):
        power = at("running")
        told: list[bool] = []
        together(*[functools.partial(press_into, power, told)] * 4)
        assert sorted(told) == [False, False, False, True]
        assert power.over


def test_wake_press_and_stop_at_once_end_in_the_stop() -> None:
    for _ in range(50):
        power = at("asleep")
        together(power.wake, power.press, functools.partial(power.request, StopReason.POWEROFF), power.wake)
        assert power.reason in (StopReason.POWEROFF, StopReason.FORCED)


def test_wake_is_kept_however_it_falls_between_suspend_and_rest() -> None:
    for _ in range(100):
        power = at("suspending")
        together(power.wake, power.at_rest)
        assert power.state is State.WAKING
