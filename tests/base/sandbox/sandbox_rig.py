"""What the tests of the sandbox share: a process that puts it on, tries things, and says what became of each."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from acrn_dm.base.sandbox import landlock
from acrn_dm.base.sandbox.confine import lacking

ROOT = Path(__file__).resolve().parents[3]
needs_landlock = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")


def _lets_threads_come_first() -> bool:
    """Whether this host lets this process's threads be SCHED_FIFO; the one that asks is so for a moment."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


needs_first = pytest.mark.skipif(not _lets_threads_come_first(), reason="this host lets no thread come first")
needs_all = pytest.mark.skipif(bool(lacking()), reason="; ".join(lacking()))

SCRIPT = """
import ctypes, errno, json, os, signal, socket, sys, threading
from pathlib import Path
from acrn_dm.base.sandbox.confine import confine
from acrn_dm.base.sandbox.needs import Needs

libc = ctypes.CDLL(None, use_errno=True)

def call(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def said(what):
    try:
        what()
    except OSError as e:
        return errno.errorcode[e.errno]
    return "ok"

{prepared}
if {mode!r} != "off":
    confine({mode!r}, Needs({needs}), "test")
"""


def run(mode: str, body: str, needs: str = "", prepared: str = "") -> "subprocess.CompletedProcess[str]":
    """A process that executes *prepared*, puts on the sandbox of *mode* for ``Needs(needs)`` and executes *body*."""
    script = SCRIPT.format(mode=mode, needs=needs, prepared=textwrap.dedent(prepared)) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, timeout=60, capture_output=True, text=True, check=False
    )


def outcome(mode: str, tried: str, needs: str = "", prepared: str = "") -> str:
    """What became of the expression *tried*: ok, the name of an errno, or the signal that ended the process."""
    done = run(mode, f"print(said(lambda: {tried}), flush=True)", needs, prepared)
    if done.returncode < 0:
        return f"signal {-done.returncode}"
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def outcomes(mode: str, tried: "dict[str, str]", needs: str = "", prepared: str = "") -> "dict[str, str]":
    """The same for several that do not end it."""
    body = f"print(json.dumps({{name: said(lambda: eval(text)) for name, text in {tried!r}.items()}}))"
    done = run(mode, body, needs, prepared)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
