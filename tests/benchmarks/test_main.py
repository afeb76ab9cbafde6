"""``python -m benchmarks``: what it collects, from whom, and what its status tells."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as collector
from benchmarks import bench_disks, bench_python
from benchmarks.rows import Entry, PeerMissing, Row, Skipped


def one_row(quick: bool) -> Iterator[Entry]:
    yield Row("one", "ns", 2.0, 1.0, "peer", "1", 2.0)
    yield Skipped("two", "no peer")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(collector, "FILE", tmp_path / "build" / "bench.json")
    return collector.FILE


@pytest.mark.parametrize("name", collector.names())
def test_every_benchmark_has_rows_and_a_table(name: str) -> None:
    module = importlib.import_module(f"benchmarks.bench_{name}")
    assert callable(module.rows)
    assert callable(module.main)


def test_a_row_is_written_with_its_peer_and_what_is_skipped_with_its_reason(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_disks, "rows", one_row)
    assert collector.main(["disks"]) == 0
    found = json.loads(file.read_text())
    (row,) = found["rows"]
    expected = {
        "benchmark": "disks",
        "name": "one",
        "unit": "ns",
        "ours": 2.0,
        "peer": 1.0,
        "ratio": 2.0,
        "spread": 0.0,
    }
    assert expected.items() <= row.items()
    assert (row["peer_name"], row["peer_version"], row["kept"]) == ("peer", "1", True)
    assert found["runs"][0]["skipped"] == [{"name": "two", "reason": "no peer"}]
    assert found["machine"]["cpus"] > 0


def test_rows_of_those_not_named_stay(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_disks, "rows", one_row)
    monkeypatch.setattr(bench_python, "rows", one_row)
    collector.main(["disks", "python"])
    monkeypatch.setattr(bench_disks, "rows", lambda quick: [Row("new", "ns", 3.0)])
    collector.main(["--quick", "disks"])
    found = json.loads(file.read_text())
    assert [(row["benchmark"], row["name"]) for row in found["rows"]] == [("disks", "new"), ("python", "one")]
    assert [(one["benchmark"], one["quick"]) for one in found["runs"]] == [("disks", True), ("python", False)]


def test_a_whole_benchmark_without_its_peer_is_skipped_and_none_failed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(quick: bool) -> Iterator[Entry]:
        raise PeerMissing("no daemon here")
        yield

    monkeypatch.setattr(bench_disks, "rows", without)
    assert collector.main(["disks"]) == 0
    assert json.loads(file.read_text())["runs"][0]["skipped"] == [{"name": "disks", "reason": "no daemon here"}]


def test_an_error_ends_that_benchmark_only_and_fails_the_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(quick: bool) -> Iterator[Entry]:
        yield Row("before", "ns", 1.0)
        raise RuntimeError("it broke")

    monkeypatch.setattr(bench_disks, "rows", broken)
    monkeypatch.setattr(bench_python, "rows", one_row)
    assert collector.main(["disks", "python"]) == 1
    found = json.loads(file.read_text())
    assert [row["name"] for row in found["rows"]] == ["before", "one"]
    assert found["runs"][0]["error"] == "RuntimeError: it broke"


def test_a_limit_that_is_missed_fails_a_run_whose_figures_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_disks, "rows", lambda quick: [Row("slow", "s", 3.0, at_most=2.0)])
    assert collector.main(["disks"]) == 1
    assert collector.main(["--quick", "disks"]) == 0


def test_a_name_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        collector.main(["bogus"])
    assert "no benchmark is called bogus" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["blk_daemon", "blk_frontend"])
def test_programs_beside_the_benchmarks_find_what_they_import(module: str) -> None:
    importlib.import_module(f"benchmarks.{module}")
