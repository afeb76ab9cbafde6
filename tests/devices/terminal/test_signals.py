"""acrn_dm.devices.terminal.signals: an end that is begun is finished, whatever signals come."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from acrn_dm.devices.terminal.signals import OFF, signals_to
from tests.devices.terminal.session import DASH, acrn_dm, session, state

ROOT = Path(__file__).parents[3]

STORM = """
import os, signal, sys
def storm():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) * 4:
        os.kill(os.getpid(), number)
"""
MACHINE = (
    STORM
    + """
from acrn_dm.cli import main
from tests.cli.fakes import FakeMachine, managing

class Machine(FakeMachine):
    def realize(self):
        storm()
    def close(self):
        storm()
        print("closed")

sys.argv = ["acrn-dm", "-k", "/k", "vm"]
code = main(make_manager=managing(), build=lambda config, plugins: Machine(config=config, plugins=plugins))
storm()
print("end")
sys.exit(code)
"""
)
BACKEND = (
    STORM
    + """
from acrn_dm.export.vhost_user import cli
from acrn_dm.export.vhost_user.device import ExportedDevice

def opened(self):
    storm()

def closed(self):
    storm()
    print("closed")

ExportedDevice.open, ExportedDevice.close = opened, closed
sys.argv = ["acrn-dm-vhost-user", "console", "--socket-path", sys.argv[1], "pty:con"]
code = cli.main()
storm()
print("end")
sys.exit(code)
"""
)


@pytest.mark.parametrize("script", [MACHINE, BACKEND], ids=["acrn-dm", "acrn-dm-vhost-user"])
def test_end_is_finished_whatever_signals_come_meanwhile(script: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", script, str(tmp_path / "socket")]
    run = subprocess.run(argv, check=False, cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert (run.returncode, run.stdout.split()) == (0, ["closed", "end"]), run.stderr
    assert not (tmp_path / "socket").exists()


def is_gone(pid: int) -> bool:
    return not state(pid)


@pytest.mark.process
def test_four_quick_sigterms_force_the_guest_off_and_nothing_is_left(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    command = acrn_dm(
        tmp_path, "--shutdown-timeout", "0.1", "-l", "com1,stdio", "-s", f"5,virtio-console,socket:con={socket}:server"
    )
    with session(DASH) as dash:
        before = dash.modes
        for turn in range(5):
            pid = dash.run(command)
            dash.wait(lambda: dash.raw and socket.exists(), "not up")
            for _ in range(4):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                dash.look(turn * 0.02)  # all of them before it ends, or some while it does
            dash.wait(functools.partial(is_gone, pid), "still there")
            assert dash.status() == 1
            assert (dash.modes, socket.exists()) == (before, False)


def handlers() -> list[object]:
    numbers = (*OFF, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT, signal.SIGTTIN, signal.SIGTTOU)
    return [signal.getsignal(number) for number in numbers]


def test_signals_are_given_back() -> None:
    before = handlers()
    with signals_to(lambda: None, lambda: None, last=False):
        assert all(a is not b for a, b in zip(handlers(), before, strict=True))
    assert handlers() == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTSTP, signal.SIGWINCH])
def test_what_our_parent_ignores_stays_ignored(number: signal.Signals) -> None:
    seen: list[int] = []
    note: Callable[[], None] = lambda: seen.append(1)  # noqa: E731
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with signals_to(note, note, last=False):
            os.kill(os.getpid(), number)
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert seen == []
