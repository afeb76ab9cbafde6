"""A Python program of ours in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence


def start_program(module: str, words: Sequence[str], told: bytes, fds: Sequence[int]) -> "subprocess.Popen[bytes]":
    """Execute *module* with *words*, *told* at its standard input, and our descriptors *fds* by their numbers; in a
    session of its own, so that what is typed at this one's terminal does not reach it. Raises OSError.
    """
    given = os.memfd_create("told")
    try:
        os.write(given, told)
        os.lseek(given, 0, os.SEEK_SET)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *words],
            stdin=given,
            stdout=subprocess.DEVNULL,
            pass_fds=fds,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path)},
        )
    finally:
        os.close(given)
