"""``python -m tools.eventfd_fight [--seconds 60]``: eventfds under a peer that does whatever keeps others waiting.

For each place where an eventfd is signalled that another process has, a process fills it, empties it and makes it
blocking and not, as fast as it can, while this one signals it all the time. Nothing may ever wait: the first signal
that takes ``STUCK_S`` is the end. The scenes are those of the tests (tests/base/events/fight_scenes.py), shorter there.
"""

import argparse
import contextlib
import faulthandler
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import attrs

from acrn_dm.base.events.eventfd import drain

STUCK_S = 20.0  # a loaded machine may hold a thread up for long, a hanging one for ever
FULL = (1 << 64) - 2  # the highest count that can be written

# It leaves the eventfd full and blocking until we have got past it: who waits for it once waits for good. The pauses
# make the rounds begin at all points of a signal, which takes a microsecond here and half a millisecond there.
FIGHT = f"""
import mmap, os, random, sys
fd, ledger = int(sys.argv[1]), mmap.mmap(int(sys.argv[2]), 16)
rounds = 0
while True:
    os.set_blocking(fd, False)
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        pass
    try:
        os.eventfd_write(fd, {FULL})
    except BlockingIOError:
        pass
    os.set_blocking(fd, True)
    rounds += 1
    ledger[:8] = rounds.to_bytes(8, "little")
    seen = ledger[8:]
    while ledger[8:] == seen:
        pass
    for _ in range(random.choice((0, random.randrange(100), random.randrange(5000)))):
        pass
"""


@attrs.frozen(kw_only=True)
class Result:
    """How a fight went: signals of ours, rounds of the peer's, the longest that a signal took."""

    signals: int
    rounds: int
    slowest_s: float


@attrs.define(eq=False)
class Fighter:
    """The peer, from ``start`` to ``stop``. It has its own descriptor of the eventfd, not its own flags or count."""

    eventfd: int
    _ledger: mmap.mmap = attrs.field(init=False)  # the peer's rounds, our signals
    _process: "subprocess.Popen[bytes] | None" = attrs.field(default=None, init=False)

    def start(self) -> None:
        """Begin, and return when the first rounds are done."""
        ledger = os.memfd_create("ledger")
        os.ftruncate(ledger, 16)
        self._ledger = mmap.mmap(ledger, 16)
        argv = [sys.executable, "-I", "-S", "-c", FIGHT, str(self.eventfd), str(ledger)]
        self._process = subprocess.Popen(argv, pass_fds=(self.eventfd, ledger))
        os.close(ledger)
        while not self.rounds:
            if self._process.poll() is not None:
                raise AssertionError("the peer did not start")
            time.sleep(0.005)

    @property
    def rounds(self) -> int:
        """How often it has filled and emptied the eventfd."""
        return int.from_bytes(self._ledger[:8], "little")

    def got_past(self, signals: int) -> None:
        """Tell it that *signals* have been made."""
        self._ledger[8:] = signals.to_bytes(8, "little")

    def stop(self) -> None:
        """End it. Who still waits for the eventfd goes on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            drain(self.eventfd)


@contextlib.contextmanager
def fighting(eventfd: int) -> Iterator[Fighter]:
    """A peer that fights over *eventfd* while the block runs; afterwards it is empty and not blocking."""
    fighter = Fighter(eventfd)
    fighter.start()
    try:
        yield fighter
    finally:
        fighter.stop()
        os.set_blocking(eventfd, False)


@attrs.define(eq=False)
class _Signaller(threading.Thread):
    """Calls *signal* until it is told to end."""

    signal: Callable[[], object]
    fighter: Fighter
    count: int = 0
    slowest: float = 0.0
    error: Exception | None = None
    halt: bool = False

    def __attrs_pre_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        try:
            while not self.halt:
                begun = time.monotonic()
                self.signal()
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.count += 1
                self.fighter.got_past(self.count)
        except Exception as e:
            self.error = e


def fight(eventfd: int, signal: Callable[[], object], *, seconds: float, signals: int, rounds: int) -> Result:
    """Call *signal*, which signals *eventfd* once, against a peer, until all three are reached. Raises AssertionError
    when it hangs.
    """
    with fighting(eventfd) as fighter:
        signaller = _Signaller(signal, fighter)
        signaller.start()
        begun = moved = time.monotonic()
        seen = 0
        while signaller.is_alive():
            time.sleep(0.02)
            now = time.monotonic()
            if signaller.count != seen:
                seen, moved = signaller.count, now
            if now - moved > STUCK_S:
                faulthandler.dump_traceback()
                signaller.halt = True
                raise AssertionError(f"it hangs in a signal, after {seen} of them and {fighter.rounds} rounds")
            if now - begun >= seconds and seen >= signals and fighter.rounds >= rounds:
                break
        signaller.halt = True
        signaller.join(STUCK_S)
        assert not signaller.is_alive(), f"it hangs in a signal, after {signaller.count} of them"
        if signaller.error is not None:
            raise signaller.error
        return Result(signals=signaller.count, rounds=fighter.rounds, slowest_s=signaller.slowest)


def main() -> int:
    """Run every scene for the time asked for; print a line each."""
    from tests.base.events.fight_scenes import SCENES  # noqa: PLC0415 - they import this module

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each scene (default: 60)")
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"of {', '.join(SCENES)} (default: all)")
    arguments = parser.parse_args()
    for name in arguments.scenes or SCENES:
        with SCENES[name]() as scene:
            result = fight(scene.eventfd, scene.signal, seconds=arguments.seconds, signals=1, rounds=1)
            scene.check()
        print(
            f"{name}: {result.signals} signals against {result.rounds} rounds, the slowest {result.slowest_s:.3f} s, "
            "and all is well afterwards",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
