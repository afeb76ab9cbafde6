"""Instructions of the native rings per chain: as many as the repository says, by the same compilers."""

import shutil
from pathlib import Path

import attrs
import pytest

from benchmarks import ring_counts
from benchmarks.ring_counts import AGAIN, FILE, Counts, compilers, kept, moved

KEPT = Counts(compilers="gcc 12", cells={"split": 100.0, "packed": 200.0})


def test_ring_counts_are_within_2_percent_of_those_kept() -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("there is no valgrind, which counts instructions")
    if kept().compilers != compilers():
        pytest.skip(f"{FILE.name} is of {kept().compilers}, here is {compilers()}")
    lines = moved(kept(), ring_counts.count())
    assert not lines, "\n".join([*lines, AGAIN])


@pytest.mark.parametrize("split", [98.0, 100.0, 102.0])
def test_ring_counts_within_the_slack_did_not_move(split: float) -> None:
    assert moved(KEPT, attrs.evolve(KEPT, cells={"split": split, "packed": 200.0})) == []


@pytest.mark.parametrize("split", [97.9, 102.1, 0.0])
def test_a_ring_count_that_rose_or_fell_by_more_moved(split: float) -> None:
    (line,) = moved(KEPT, attrs.evolve(KEPT, cells={"split": split, "packed": 200.0}))
    assert line == f"split: {split} instructions a chain, 100.0 in ring_counts.json"


def test_a_cell_that_is_new_or_gone_moved() -> None:
    lines = moved(KEPT, attrs.evolve(KEPT, cells={"split": 100.0, "third": 5.0}))
    assert [line.split(":")[0] for line in lines] == ["packed", "third"]


def test_ring_counts_of_other_compilers_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ring_counts, "kept", lambda: KEPT)
    monkeypatch.setattr(ring_counts, "count", lambda: attrs.evolve(KEPT, compilers="gcc 13"))
    assert ring_counts.main([]) == 1
    assert capsys.readouterr().err == "not compared: ring_counts.json is of gcc 12, here is gcc 13\n"


def test_ring_counts_are_written_anew_when_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ring_counts, "FILE", tmp_path / "ring_counts.json")
    monkeypatch.setattr(ring_counts, "count", lambda: KEPT)
    assert ring_counts.main(["--write"]) == 0
    assert kept() == KEPT
    assert ring_counts.main([]) == 0
