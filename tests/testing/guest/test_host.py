"""Processes of this host are as those in the outer VM."""

import pytest

from acrn_dm.testing.guest.errors import HarnessError, HarnessTimeout
from acrn_dm.testing.guest.host import Host


def test_result_has_status_and_both_outputs() -> None:
    done = Host().spawn("echo out; echo err >&2; exit 7").wait()
    assert (done.rc, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_process_gets_input_folder_and_environment() -> None:
    process = Host().spawn('read -r line; echo "$line $PWD $WORD"', cwd="/proc", env={"WORD": "a b"})
    process.write(b"typed\n")
    assert process.wait().stdout == "typed /proc a b\n"


def test_process_past_its_time_is_killed_with_what_it_started() -> None:
    process = Host().spawn("echo begun; sleep 1234 & sleep 1234")
    with pytest.raises(HarnessTimeout, match=r"no end within 0\.2 s; stdout: \.\.\.'begun"):
        process.wait(0.2)
    assert process.returncode == -9  # known when its output has ended, which its child had, too


def test_signal_goes_to_the_process_and_its_children() -> None:
    process = Host().spawn("sleep 1234 & wait")
    process.signal(15)
    assert process.wait().rc == -15


def test_input_for_a_process_that_has_ended_is_lost() -> None:
    process = Host().spawn("exit 3")
    process._process.wait()
    process.write(b"too late\n")
    assert process.wait().rc == 3


def test_program_that_is_not_there_is_named() -> None:
    with pytest.raises(HarnessError, match=r"/nonexistent could not be started: .*No such file"):
        Host().spawn(["/nonexistent"])
