"""Other processes, as far as /proc lets us see them: who has a file open, and what such a process is called."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

PROC = Path("/proc")


def openers(wanted: Callable[[os.stat_result], bool]) -> Iterator[tuple[int, int]]:
    """Process and number of each descriptor, of those we may see, whose file is *wanted*; our own, too.

    There are thousands on a host, and a start looks for some: names of files are put together as text.
    """
    for pid in filter(str.isdecimal, os.listdir(PROC)):
        folder = f"{PROC}/{pid}/fd"
        with contextlib.suppress(OSError):
            for number in os.listdir(folder):
                try:
                    found = wanted(os.stat(f"{folder}/{number}"))
                except OSError:
                    continue
                if found:
                    yield int(pid), int(number)


def fd_information(pid: int, number: int) -> str:
    """What the kernel says about one descriptor (proc(5), fdinfo); nothing where it says nothing."""
    try:
        return (PROC / str(pid) / "fdinfo" / str(number)).read_text()
    except OSError:
        return ""


def describe(pid: int) -> str:
    """Process *pid* in words."""
    return "this process" if pid == os.getpid() else f"process {pid} ({program(pid)})"


def program(pid: int) -> str:
    """The name of process *pid*; a Python program's own, not the interpreter's."""
    try:
        words = [os.fsdecode(word) for word in (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]]
        if len(words) > 1 and Path(words[0]).name.startswith("python"):
            words = words[2:] if words[1] == "-m" and len(words) > 2 else words[1:]
        return Path(words[0]).name
    except (OSError, IndexError):
        return "unknown"
