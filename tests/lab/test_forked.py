"""What ``forked`` starts ends, prints and reads as what ``subprocess.Popen`` starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import forked

pytestmark = pytest.mark.process

STATE = "tests.lab.outer.process_state"


def outcome(folder: Path, *words: str, word: bytes = b"") -> tuple[int, str]:
    """Status and output of a module with its arguments, which reads *word*."""
    output = folder / "output"
    with output.open("wb") as file:
        argv = [sys.executable, "-m", *words]
        process = forked.start(argv, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)
    process.communicate(word, timeout=20)
    return process.returncode, output.read_text()


def test_forked_program_has_its_arguments_its_files_and_its_own_end(tmp_path: Path) -> None:
    status, said = outcome(tmp_path, STATE, "one", "a b", word=b"3\n")
    state, heard = said.splitlines()
    assert (status, heard) == (3, "heard 3")
    assert json.loads(state)["argv"][1:] == ["one", "a b"]
    assert json.loads(state)["descriptors"].keys() == {"0", "1", "2"}


def test_forked_program_that_raises_ends_with_1_and_its_traceback(tmp_path: Path) -> None:
    status, said = outcome(tmp_path, STATE, word=b"no number\n")
    assert status == 1
    assert "ValueError: invalid literal for int()" in said


def test_module_that_is_not_there_is_told(tmp_path: Path) -> None:
    status, said = outcome(tmp_path, "no_such_module")
    assert status == 1
    assert "No module named no_such_module" in said
