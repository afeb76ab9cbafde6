"""This Python's modules for whoever a test becomes: an interpreter of root's may lie where no other user can look."""

import ctypes
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEWNS = 0x20000  # linux/sched.h, CLONE_NEWNS
MODULE = Path(os.path.realpath(os.__file__))


def closed_folder() -> Path | None:
    """The first folder on the way to the modules into which others can't go."""
    for folder in reversed(MODULE.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), name)


@contextmanager
def opened(kept: Path) -> Iterator[None]:
    """Whoever is started by this thread meanwhile finds another folder in place of the closed one: nothing is in it but
    the way to the modules, which are mounted at *kept*, too. Needs root.
    """
    closed = closed_folder()
    if closed is None:
        yield
        return
    inner = closed / MODULE.relative_to(closed).parts[0]
    kept.mkdir()
    steps = f"mount --bind {inner} {kept} && mount -t tmpfs -o mode=755 none {closed} && mkdir {inner}"
    before, where = os.open("/proc/self/ns/mnt", os.O_RDONLY), os.getcwd()
    try:
        _call("unshare", NEWNS)
    except OSError:
        pytest.skip(f"{MODULE} can't be read by other users, and nothing can be mounted here")
    try:
        for command in ("mount --make-rprivate /", f"{steps} && mount --bind {kept} {inner}"):
            subprocess.run(command, shell=True, check=True)
        yield
    finally:
        _call("setns", before, NEWNS)
        os.chdir(where)  # which setns(2) makes the root
        os.close(before)
