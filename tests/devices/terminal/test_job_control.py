"""acrn-dm as a job of a real shell: in the background, stopped, brought to the front, and ended in all ways."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devices.terminal.session import BASH, DASH, Session, acrn_dm, session, state

pytestmark = pytest.mark.process

QUIT = "\x01x"
COM1 = ("-l", "com1,stdio")


@pytest.fixture
def bash() -> Iterator[Session]:
    with session(BASH) as made:
        yield made


@pytest.fixture
def dash() -> Iterator[Session]:
    with session(DASH) as made:
        yield made


def quit_by_key(s: Session) -> None:
    """Press the power button and, as the guest does not hear it, force the guest off."""
    s.type(QUIT + QUIT)
    s.wait_for("forced off: asked a second time")


def test_job_in_the_background_is_not_stopped_by_a_key_typed_at_the_shell(bash: Session, tmp_path: Path) -> None:
    pid = bash.run(acrn_dm(tmp_path, *COM1), background=True)
    bash.type("echo typed $((6 * 7))\n")
    bash.wait_for("typed 42")
    assert state(pid) in "SRD"
    assert os.tcgetpgrp(bash.master) == bash.shell.pid


def test_job_in_the_background_takes_no_keys_and_leaves_the_modes(bash: Session, tmp_path: Path) -> None:
    bash.run(acrn_dm(tmp_path, *COM1), background=True)
    for number in range(20):
        bash.type(f"echo typed $(({number} * 1000))\n")
        bash.wait_for(f"typed {number * 1000}")
        assert not bash.raw


def test_job_that_was_started_in_the_background_is_raw_in_the_front(bash: Session, tmp_path: Path) -> None:
    bash.run(acrn_dm(tmp_path, *COM1), background=True)
    assert not bash.raw
    bash.type("fg\n")
    bash.wait(lambda: bash.raw, "not raw after fg")
    quit_by_key(bash)
    assert bash.status() == 1
    assert not bash.raw


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_stopped_job_is_raw_again_in_the_front(bash: Session, tmp_path: Path, number: signal.Signals) -> None:
    pid = bash.run(acrn_dm(tmp_path, *COM1))
    bash.wait(lambda: bash.raw, "not raw")
    os.kill(pid, number)
    bash.wait_for("Stopped")
    bash.wait(lambda: not bash.raw, "raw at the shell")
    bash.type("fg\n")
    bash.wait(lambda: bash.raw, "not raw after fg")
    quit_by_key(bash)
    assert not bash.raw


def test_stopped_job_goes_on_in_the_background(bash: Session, tmp_path: Path) -> None:
    pid = bash.run(acrn_dm(tmp_path, *COM1))
    os.kill(pid, signal.SIGTSTP)
    bash.wait_for("Stopped")
    bash.type("bg\n")
    bash.wait(lambda: state(pid) not in "T", "still stopped")
    bash.type("echo typed $((6 * 7))\n")
    bash.wait_for("typed 42")
    assert state(pid) in "SRD"
    assert not bash.raw


def test_stop_gives_the_terminal_back_by_itself(dash: Session, tmp_path: Path) -> None:
    """This shell sets no modes."""
    before = dash.modes
    pid = dash.run(acrn_dm(tmp_path, *COM1))
    dash.wait(lambda: dash.raw, "not raw")
    os.kill(pid, signal.SIGTSTP)
    dash.wait(lambda: state(pid) == "T", "not stopped")
    assert dash.modes == before
    dash.type("fg\n")
    dash.wait(lambda: dash.raw, "not raw after fg")
    quit_by_key(dash)
    dash.wait(lambda: dash.modes == before, "not as before")


INTERRUPTED = """
import os, signal
from acrn_dm.devices.terminal.files import share_input, share_output
from acrn_dm.devices.terminal.line import Line
from acrn_dm.devices.terminal.signals import signals_to
from acrn_dm.base.events.ioloop import IoLoop
loop = IoLoop("main")
line = Line("test", share_input(0), share_output(1))
line.start(loop)
with signals_to(lambda: None, lambda: None, last=True):
    with line._raw._lock:
        os.kill(os.getpid(), signal.SIGTSTP)
        print("not yet", flush=True)
    loop.run_until_idle()
    print("goes on", flush=True)
    line.close()
"""


def test_stop_that_interrupts_the_work_on_the_modes_comes_when_that_is_done(dash: Session, tmp_path: Path) -> None:
    before = dash.modes
    (tmp_path / "job.py").write_text(INTERRUPTED)
    dash.type(f"{sys.executable} {tmp_path / 'job.py'}\n")
    dash.wait_for("not yet")
    (pid,) = dash.children()
    dash.wait(lambda: state(pid) == "T", "not stopped")
    assert dash.modes == before
    dash.type("fg\n")
    dash.wait_for("goes on")
    dash.wait(lambda: dash.modes == before, "not as before")


def test_stop_that_nobody_hears_of_does_not_make_raw_modes_the_ones_to_put_back(dash: Session, tmp_path: Path) -> None:
    before = dash.modes
    pid = dash.run(acrn_dm(tmp_path, *COM1))
    dash.wait(lambda: dash.raw, "not raw")
    os.kill(pid, signal.SIGSTOP)
    dash.wait(lambda: state(pid) == "T", "not stopped")
    os.kill(pid, signal.SIGCONT)
    dash.type("fg\n")
    dash.wait(lambda: os.tcgetpgrp(dash.master) == pid, "not in the front")
    quit_by_key(dash)
    dash.wait(lambda: dash.modes == before, "not as before")


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV, signal.SIGALRM, signal.SIGUSR1])
def test_signal_that_ends_the_process_leaves_the_terminal_as_it_was(
    dash: Session, tmp_path: Path, number: signal.Signals
) -> None:
    before = dash.modes
    pid = dash.run(["ulimit -c 0;", *acrn_dm(tmp_path, *COM1)])
    dash.wait(lambda: dash.raw, "not raw")
    os.kill(pid, number)
    dash.wait(lambda: not state(pid), "still there")
    assert dash.modes == before
    assert dash.status() == 128 + number


def test_signal_that_ends_a_job_in_the_background_leaves_the_shells_modes(bash: Session, tmp_path: Path) -> None:
    pid = bash.run(acrn_dm(tmp_path, *COM1))
    bash.wait(lambda: bash.raw, "not raw")
    os.kill(pid, signal.SIGSTOP)
    bash.wait_for("Stopped")
    bash.wait(lambda: not bash.raw, "raw at the shell")
    bash.wait_for("ready> ")
    modes = bash.modes  # readline's
    os.kill(pid, signal.SIGABRT)
    os.kill(pid, signal.SIGCONT)
    bash.wait(lambda: state(pid) in ("Z", ""), "still there")
    assert bash.modes == modes


def test_escape_key_ends_the_machine_at_the_serial_port(dash: Session, tmp_path: Path) -> None:
    before = dash.modes
    dash.run(acrn_dm(tmp_path, *COM1))
    quit_by_key(dash)
    assert dash.status() == 1
    assert dash.modes == before


def test_escape_key_ends_the_machine_at_a_virtio_console(dash: Session, tmp_path: Path) -> None:
    """The same key as at the serial port, although no driver reads there."""
    before = dash.modes
    command = acrn_dm(tmp_path, "-s", "5,virtio-console,@stdio:con")
    dash.type(" ".join(command) + "\n")
    dash.wait(lambda: dash.raw, "not raw")
    quit_by_key(dash)
    assert dash.status() == 1
    assert dash.modes == before


def test_escape_key_ends_a_console_that_is_served_to_another_program(dash: Session, tmp_path: Path) -> None:
    before = dash.modes
    program = [sys.executable, "-m", "acrn_dm.export.vhost_user.cli", "console", f"--socket-path={tmp_path / 's'}"]
    dash.type(" ".join(program) + "\n")
    dash.wait(lambda: dash.raw, "not raw")
    dash.type(QUIT)
    dash.wait_for("ready> ")
    assert dash.status() == 0
    assert dash.modes == before


def test_escape_key_is_seen_behind_more_input_than_the_guest_takes(dash: Session, tmp_path: Path) -> None:
    dash.run(acrn_dm(tmp_path, *COM1))
    dash.wait(lambda: dash.raw, "not raw")
    for _ in range(16):
        dash.type("." * 1024)
    quit_by_key(dash)
    assert dash.status() == 1


def test_terminals_file_is_never_non_blocking(dash: Session, tmp_path: Path) -> None:
    pid = dash.run(acrn_dm(tmp_path, *COM1))
    assert os.get_blocking(dash.terminal)
    os.kill(pid, signal.SIGKILL)
    dash.wait(lambda: not state(pid), "still there")
    assert os.get_blocking(dash.terminal)
