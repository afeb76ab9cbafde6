"""``python -m benchmarks.filtered_call``: nanoseconds of a system call, before the process has the filter of a disk's
sandbox and with it.

The least of many short loops: what else the machine does only adds. Python's own part of a loop is in both figures, so
their difference is the filter's.
"""

import os
import sys
import time

from acrn_dm.base.process.privileges import no_new_privileges
from acrn_dm.base.sandbox import seccomp
from acrn_dm.base.sandbox.needs import Needs

CALLS, LOOPS = 5000, 500


def least_ns(fd: int) -> float:
    """Of a write to the eventfd *fd*."""
    write, calls, least = os.eventfd_write, range(CALLS), float("inf")
    for _ in range(LOOPS):
        began = time.perf_counter()
        for _ in calls:
            write(fd, 1)
        least = min(least, time.perf_counter() - began)
    return least / CALLS * 1e9


def main() -> int:
    """Print both figures."""
    fd = os.eventfd(0)
    before = least_ns(fd)
    no_new_privileges()
    seccomp.put_on(Needs(), os.getpid(), strict=True)
    print(before, least_ns(fd))
    return 0


if __name__ == "__main__":
    sys.exit(main())
