"""Steps that last are told of, and no others."""

import queue

import pytest

from acrn_dm.testing.guest import progress


@pytest.fixture
def told() -> "queue.Queue[str]":
    return queue.Queue()


def test_step_that_lasts_is_told_of_again_and_again_and_at_its_end(
    told: "queue.Queue[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.001)
    monkeypatch.setattr(progress, "EVERY_S", 0.002)
    with progress.shown_by(told.put), progress.step("cooking"):
        lines = [told.get(timeout=5) for _ in range(2)]
    assert lines == ["cooking (0 s so far)"] * 2
    assert list(told.queue)[-1] == "cooking: 0 s"


def test_step_that_does_not_last_is_not_told_of(told: "queue.Queue[str]") -> None:
    with progress.shown_by(told.put), progress.step("cooking"):
        pass
    assert told.empty()


def test_step_that_fails_ends_its_progress(told: "queue.Queue[str]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.001)
    with pytest.raises(queue.Full), progress.shown_by(told.put), progress.step("cooking"):
        raise queue.Full(told.get(timeout=5))
    assert told.get(timeout=5) == "cooking: 0 s"
