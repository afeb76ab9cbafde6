"""acrn-dm as a fork of the process in the outer VM that starts it, which a stem has forked and so has its modules."""

import functools
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Sequence
from typing import IO


def start(argv: Sequence[str], *, stdin: int, stdout: IO[bytes], stderr: int) -> subprocess.Popen[bytes]:
    """What ``subprocess.Popen`` makes of *argv*, ``python -m NAME ARGUMENTS...``, without the start of Python."""
    program = functools.partial(be, argv[argv.index("-m") + 1 :])
    return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, preexec_fn=program)  # noqa: PLW1509 - one thread


def be(words: Sequence[str]) -> None:
    """In the new process, before it would execute anything: be ``NAME ARGUMENTS...``. Never returns."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the pipe, too, by which Popen learns that it goes on
    sys.argv[:] = words
    # The parent's objects may have read ahead, or be another's.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - until the end
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    status = 1
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for file in (sys.stdout, sys.stderr):
            file.flush()
        os._exit(status)
