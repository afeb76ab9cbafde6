"""base.steps: every step is taken; the first error is raised, the others are in the log."""

from collections.abc import Callable

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.steps import do_all


def failing(text: str, done: list[str]) -> Callable[[], None]:
    def step() -> None:
        done.append(text)
        raise HostError(text)

    return step


def test_steps_behind_one_that_fails_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    with pytest.raises(HostError, match="first"):
        do_all([failing("first", done), lambda: done.append("between"), failing("second", done)])
    assert done == ["first", "between", "second"]
    assert [record.getMessage() for record in caplog.records] == ["closing: second"]
