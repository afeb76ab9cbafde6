"""Jobs: each in a process of its own, and none that dies is taken for one that is done."""

import os
import signal

import pytest

from tests.testing.conformance.mutants import jobs


def _fails() -> object:
    raise KeyError("x")


def _dies() -> object:
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def _hangs() -> object:
    signal.pause()
    return None


def test_results_come_back_with_their_names() -> None:
    mine = os.getpid()
    found = dict(jobs.run([("a", os.getpid), ("b", lambda: {"c": [1]}), ("d", lambda: 3)], at_once=2))
    assert found.pop("a") != mine
    assert found == {"b": {"c": [1]}, "d": 3}


@pytest.mark.parametrize(("job", "words"), [(_fails, "KeyError: 'x'"), (_dies, "stuck, or dead without a word")])
def test_job_that_fails_says_why(job: jobs.Job, words: str) -> None:
    assert dict(jobs.run([("bad", job), ("good", lambda: 1)])) == {"bad": words, "good": 1}


def test_job_that_is_stuck_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LIMIT_S", 0.0)
    assert dict(jobs.run([("bad", _hangs)])) == {"bad": "stuck, or dead without a word"}
