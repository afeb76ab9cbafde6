"""What a process sees of itself, as one JSON line: ``python -m tests.lab.outer.process_state [WORD...]``.

Then it says what it reads, and ends with the status that it reads.
"""

import json
import os
import resource
import signal
import sys
import threading
from pathlib import Path

STATUS = ("Umask", "Threads", "SigBlk", "SigIgn", "SigCgt", "NoNewPrivs", "CapEff", "Seccomp")
LIMITS = ("RLIMIT_NOFILE", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_MEMLOCK")


def status() -> dict[str, str]:
    """Of what the kernel keeps for the process, all that a new program inherits or has reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {name: values[name] for name in STATUS}


def descriptors() -> dict[str, str]:
    """What is open, by number: the kind, for a pipe's number is another each time."""
    opened = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            opened[number] = os.readlink(f"/proc/self/fd/{number}").partition("[")[0]
        except OSError:  # that of the listing itself
            continue
    return opened


def state() -> dict[str, object]:
    return {
        "argv": sys.argv,
        "name": __name__,
        "module": sys.modules["__main__"].__dict__ is globals(),
        "path": sys.path,
        "flags": list(sys.flags),
        "bytecode": sys.pycache_prefix,
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "session": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "parent": os.getppid(),
        "status": status(),
        "limits": [resource.getrlimit(getattr(resource, name)) for name in LIMITS],
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": sorted(os.sched_getaffinity(0)),
        "descriptors": descriptors(),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "files": [
            [file.isatty(), file.encoding, file.errors, file.line_buffering, file.seekable(), file.fileno()]  # type: ignore[attr-defined]
            for file in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "main": threading.current_thread() is threading.main_thread(),
        "thread": threading.main_thread().native_id == os.getpid(),
    }


if __name__ == "__main__":
    print(json.dumps(state(), sort_keys=True), flush=True)
    word = sys.stdin.readline().strip()
    print(f"heard {word}", file=sys.stderr)
    sys.exit(int(word))
