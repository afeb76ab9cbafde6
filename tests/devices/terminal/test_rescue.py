"""acrn_dm.devices.terminal._rescue: terminals are given back where Python's own handlers never come."""

import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from acrn_dm.devices.terminal import _rescue
from tests.devices.terminal.session import is_raw

ROOT = Path(__file__).parents[3]

DIES = """
import ctypes, os, resource, sys
from acrn_dm.devices.terminal.modes import RawMode
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
raw = RawMode(0)
raw.enter()
print("raw", flush=True)
sys.stdin.read(1)
{how}
"""
WAYS = {
    "abort": ("os.abort()", signal.SIGABRT),
    "fault": ("ctypes.string_at(0)", signal.SIGSEGV),
    "left before": ("raw.leave(); os.abort()", signal.SIGABRT),
    "entered twice": ("raw.enter(); os.abort()", signal.SIGABRT),
}


@pytest.mark.parametrize("options", [[], ["-X", "faulthandler"]], ids=["plain", "faulthandler"])
@pytest.mark.parametrize("way", WAYS)
def test_process_that_dies_in_c_leaves_the_terminal_as_it_was(
    pty: tuple[int, int], options: list[str], way: str
) -> None:
    ours, theirs = pty
    before = termios.tcgetattr(theirs)
    how, number = WAYS[way]
    argv = [sys.executable, *options, "-c", DIES.format(how=how)]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"raw\n"
    assert is_raw(theirs)
    os.write(ours, b"x")
    _, err = process.communicate(timeout=60)
    assert process.returncode == -number
    assert termios.tcgetattr(theirs) == before
    assert (b"Fatal Python error" in err) is bool(options)


def test_number_of_terminals_is_bounded_and_places_are_used_again(pty: tuple[int, int]) -> None:
    slots = [_rescue.keep(pty[1]) for _ in range(40)]
    assert sorted(set(slots)) == [-1, *range(32)]
    for slot in slots:
        _rescue.forget(slot)
    assert _rescue.keep(pty[1]) == 0
    _rescue.forget(0)


def test_file_that_is_no_terminal_is_not_kept() -> None:
    read, write = os.pipe()
    assert _rescue.keep(read) == -1
    os.close(read)
    os.close(write)


def test_signals_are_as_before_once_nothing_is_kept() -> None:
    """And those that somebody handles stay theirs meanwhile."""
    script = (
        "import os, signal, sys\n"
        "from acrn_dm.devices.terminal import _rescue\n"
        "def caught(): return int(open('/proc/self/status').read().partition('SigCgt:')[2].split()[0], 16)\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('mine', flush=True))\n"
        "before = caught()\n"
        "fd = os.openpty()[1]\n"
        "slot = _rescue.keep(fd)\n"
        "print(bool(caught() & 1 << signal.SIGQUIT - 1))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "_rescue.forget(slot)\n"
        "print(caught() == before)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["True", "mine", "True"]
