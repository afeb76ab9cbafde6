"""State of a process that outlives the test which changes it, and makes others slow or wrong: of the thread that runs
tests, and of the whole process.
"""

import os
import resource
from pathlib import Path


def state() -> dict[str, object]:
    """What there is now, by name."""
    status = Path("/proc/thread-self/status").read_text().splitlines()
    return {
        "scheduling policy": os.sched_getscheduler(0),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "CPUs": os.sched_getaffinity(0),
        "timer slack": Path("/proc/self/timerslack_ns").read_text(),
        "working directory": str(Path.cwd()),
        "open files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "file size": resource.getrlimit(resource.RLIMIT_FSIZE),
        "privileges and filters": [line for line in status if line.startswith(("Umask", "NoNewPrivs", "Seccomp:"))],
    }
