"""``python -m tools.rings.race``: 10^8 chains through a ring of each format, between two threads on two processors.

A driver in C on one, the native ring on the other; both sleep whenever they find nothing. A wake-up or a chain that is
lost, or one that is seen before its data, ends the race, and the exit status is 1.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable

from acrn_dm.ring.trial._race import Race

CHAINS = 100_000_000
WRONG = ("nothing wrong", "a lost wake-up", "a chain in the place of another", "wrong data", "a broken ring")
WAYS = [(packed, event_idx) for packed in (False, True) for event_idx in (False, True)]


def race(chains: int, *, packed: bool, event_idx: bool, pinned: bool = False, linger: int = 0, **more: int) -> Race:
    """Run one race to its end, with *more* of ``Race``'s options. Raises AssertionError for what a side found wrong."""
    made = Race(packed=packed, event_idx=event_idx, size=64, chains=chains, linger=linger, **more)
    found: list[int] = []
    cpus = sorted(os.sched_getaffinity(0))

    def side(cpu: int, run: Callable[[], int]) -> Callable[[], None]:
        def body() -> None:
            if pinned:
                os.sched_setaffinity(0, {cpu})  # of this thread alone
            found.append(run())

        return body

    threads = [threading.Thread(target=side(cpus[0], made.serve)), threading.Thread(target=side(cpus[-1], made.drive))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [0, 0], f"{WRONG[max(found)]} after {made.done} of {chains} chains"
    return made


def main() -> int:
    """Race each format with and without EVENT_IDX, half of its chains each."""
    parser = argparse.ArgumentParser(prog="python -m tools.rings.race", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--chains", type=int, default=CHAINS, help="of each format")
    parser.add_argument("--linger", type=int, default=60, help="memory fences between finding nothing and asking")
    given = parser.parse_args()
    for packed, event_idx in WAYS:
        begin = time.monotonic()
        name = f"{'packed' if packed else 'split'}{' event_idx' if event_idx else ''}"
        try:
            made = race(given.chains // 2, packed=packed, event_idx=event_idx, pinned=True, linger=given.linger)
        except AssertionError as e:
            print(f"{name}: {e}")
            return 1
        took = time.monotonic() - begin
        print(
            f"{name}: {made.done} chains in {took:.1f} s ({took / made.done * 1e9:.0f} ns each); {made.kicks} kicks,"
            f" {made.calls} calls; asleep: device {made.device_slept} times, driver {made.driver_slept}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
