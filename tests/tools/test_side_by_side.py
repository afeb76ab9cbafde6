"""A test run in parts: nothing is lost, the counts are added up, and a part that breaks is a failure."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.paths import ROOT
from tools.side_by_side import PARTS, TWO_PROCESSES, run

# Makes a file, and waits for the other one's.
MEET = """
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
deadline = time.monotonic() + 20
while not other.exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
print("1 passed, 0 failed, 0 skipped")
"""
SAY = "print({text!r}); import sys; sys.exit({status})"


def says(text: str, status: int = 0) -> list[str]:
    """A command that prints that and exits so."""
    return [sys.executable, "-c", SAY.format(text=text, status=status)]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_counts_of_the_parts_are_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert run({"a": says("3 passed, 0 failed, 1 skipped"), "b": says("4 passed, 0 failed, 0 skipped")}) == 0
    assert last_line(capsys) == "7 passed, 0 failed, 1 skipped"


def test_failures_of_one_part_are_those_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run({"a": says("3 passed, 2 failed, 1 skipped", 1), "b": says("4 passed, 0 failed, 0 skipped")}) == 1
    assert last_line(capsys) == "7 passed, 2 failed, 1 skipped"


@pytest.mark.parametrize(("text", "status"), [("killed", -9), ("4 passed, 0 failed, 0 skipped", 3), ("nothing", 0)])
def test_part_without_a_count_or_with_a_bad_end_fails_the_run(
    text: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run({"a": says("3 passed, 0 failed, 1 skipped"), "b": says(text, status)}) == 1
    assert ", 1 failed, " in last_line(capsys)


def test_parts_run_beside_one_another(tmp_path: Path) -> None:
    """Each waits for a file that the other one makes."""
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert run({"a": [sys.executable, "-c", MEET, a, b], "b": [sys.executable, "-c", MEET, b, a]}) == 0


def test_output_stands_behind_the_name_of_its_part(capsys: pytest.CaptureFixture[str]) -> None:
    run({"one": says("hello\nthere"), "two": says("world")})
    lines = capsys.readouterr().out.splitlines()
    assert {"one      | hello", "one      | there", "two      | world"} <= set(lines)


@pytest.fixture
def top(request: pytest.FixtureRequest) -> Any:
    """The conftest of all test runs, as pytest has imported it."""
    plugins = request.config.pluginmanager.get_plugins()
    (module,) = (p for p in plugins if getattr(p, "__file__", None) == str(ROOT / "conftest.py"))
    return module


def test_every_test_is_in_exactly_one_part(top: Any) -> None:
    """The rest has all that are not the lab's; of the lab's folders one part has some, and another one what is left."""
    lab = [part for part in PARTS.values() if "not lab" not in part]
    (others,) = (part for part in PARTS.values() if "not lab" in part)
    assert set(others) == {"tests", "plugins", "-m", "not lab", *TWO_PROCESSES}
    (remaining,) = (part for part in lab if any(word.startswith("--ignore=") for word in part))
    chosen = {word for part in lab if part != remaining for word in part if not word.startswith("-")} - {"lab"}
    left_out = {word.removeprefix("--ignore=") for word in remaining if word.startswith("--ignore=")}
    roots = {word for word in remaining if word.startswith("tests")}
    assert left_out == {folder for folder in chosen if any(folder.startswith(f"{root}/") for root in roots)}
    assert roots | (chosen - left_out) == set(top.LAB)
    assert all(tuple(part[part.index("-m") :][:2]) == ("-m", "lab") for part in lab)
    assert all((ROOT / folder).is_dir() for folder in chosen)


@pytest.mark.parametrize(("place", "refused"), [("tests/lab/x/test_x.py", False), ("tests/labx/test_x.py", True)])
def test_test_of_the_lab_outside_its_folders_is_refused(
    place: str, refused: bool, top: Any, request: pytest.FixtureRequest
) -> None:
    node = pytest.Function.from_parent(request.node.parent, name="test_x", callobj=lambda: None)
    node.path = ROOT / place
    node.add_marker("lab")
    with pytest.raises(pytest.UsageError, match="tests/lab") if refused else contextlib.nullcontext():
        top.pytest_collection_modifyitems([node])
