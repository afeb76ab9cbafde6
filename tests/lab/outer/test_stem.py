"""Processes of the outer VM that a stem forks are as those that are executed, but for the start."""

import json
import sys

import pytest

from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import LAB, ROOT

MODULE = "tests.lab.outer.process_state"
COMMAND = (sys.executable, "-m", MODULE, "one", "a b")
STEM = ("json", "decimal")
LOADED = "import sys, os; print('decimal' in sys.modules, os.getppid()); os.kill(os.getpid(), 9)"


def test_forked_process_sees_of_itself_what_an_executed_one_does(lab: OuterVm) -> None:
    environment = {"WORD": "a b", "HOME": "/nowhere"}
    executed = lab.run(COMMAND, cwd=ROOT, env=environment, stdin=b"3\n")
    process = lab.spawn(COMMAND, cwd=ROOT, env=environment, stem=STEM)
    process.write(b"3\n")
    forked = process.wait()
    assert json.loads(forked.stdout) == json.loads(executed.stdout)
    assert (forked.rc, forked.stderr) == (executed.rc, executed.stderr) == (3, "heard 3\n")


def test_second_process_of_a_stem_has_nothing_of_the_first(lab: OuterVm) -> None:
    first = lab.spawn(COMMAND, cwd=ROOT, env={"FIRST": "yes"}, stem=STEM)
    second = lab.spawn(COMMAND[:3], cwd=ROOT, stem=STEM)
    second.wait_for("\n")
    for process in (first, second):
        process.write(b"0\n")
    first_state, second_state = (json.loads(process.wait().stdout) for process in (first, second))
    assert first_state["environment"]["FIRST"] == "yes"
    assert "FIRST" not in second_state["environment"]
    assert (len(first_state["argv"]), len(second_state["argv"])) == (3, 1)
    assert second_state["descriptors"] == first_state["descriptors"]


def test_forked_process_has_the_modules_is_process_1s_child_and_its_signal_is_told(lab: OuterVm) -> None:
    (LAB / "stem_probe.py").write_text(LOADED)
    command = (sys.executable, "-m", "stem_probe")
    result = lab.spawn(command, cwd=LAB, stem=STEM).wait()
    assert (result.stdout, result.rc) == ("", -9)
    assert lab.spawn(command, cwd=LAB, stem=STEM, env={"PYTHONUNBUFFERED": "1"}).wait().stdout == "True 1\n"


def test_signal_goes_to_the_forked_process_and_not_to_its_stem(lab: OuterVm) -> None:
    process = lab.spawn(COMMAND, cwd=ROOT, stem=STEM)
    process.wait_for("\n")
    process.signal(15)
    assert process.wait().rc == -15
    again = lab.spawn(COMMAND, cwd=ROOT, stem=STEM)
    again.write(b"0\n")
    assert again.wait().rc == 0


def test_directory_that_is_not_there_is_told(lab: OuterVm) -> None:
    with pytest.raises(HarnessError, match="nonexistent"):
        lab.spawn(COMMAND, cwd="/nonexistent", stem=STEM).wait()


def test_stem_that_lacks_a_module_is_told_and_the_agent_goes_on(lab: OuterVm) -> None:
    with pytest.raises(HarnessError, match="its stem has ended"):
        lab.spawn(COMMAND, cwd=ROOT, stem=("no_such_module",)).wait()
    assert lab.run(["true"]).rc == 0
