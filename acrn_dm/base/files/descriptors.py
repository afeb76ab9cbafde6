"""The limit of open files: the soft one is low for programs that use select(2), which we do not."""

import contextlib
import resource


def limit() -> int:
    """The number that can be had: the hard limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_limit() -> None:
    """Take all that can be had."""
    hard = limit()
    with contextlib.suppress(OSError, ValueError):  # more than the system's fs.nr_open: it stays as it was
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
