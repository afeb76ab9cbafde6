"""The reader that follows pages: it writes what is shown, and sees each kind of untruth."""

from pathlib import Path

import pytest

from tests.docs.page_runner import Reader, blocks, environment

FILE = "```{code-block} sh\n:caption: greet.sh\n\necho hello $1\n```\n"


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(folder=tmp_path, environment=environment(tmp_path))


def console(*lines: str, options: str = "") -> str:
    head = "{code-block} console\n" + options + "\n" if options else "console\n"
    return f"```{head}" + "\n".join(lines) + "\n```\n"


def test_file_is_written_and_command_sees_it(reader: Reader) -> None:
    assert reader.follow(FILE + console("$ sh greet.sh world", "hello world")) == 2


def test_dots_stand_for_any_text(reader: Reader) -> None:
    reader.follow(console("$ printf 'a\\nb\\nc\\n'", "a", "...", "c"))


def test_directory_holds_for_the_next_command(reader: Reader, tmp_path: Path) -> None:
    reader.follow(console("$ mkdir sub && cd sub") + FILE + console("$ pwd", f"{tmp_path}/sub"))
    assert (tmp_path / "sub" / "greet.sh").exists()


def test_exported_variable_holds_for_the_next_command(reader: Reader) -> None:
    reader.follow(console("$ export A='b c'") + console("$ echo $A", "b c"))


def test_command_may_be_continued(reader: Reader) -> None:
    reader.follow(console("$ echo a \\", "    b", "a b"))


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (console("$ false"), "exit code 1"),
        (console("$ echo a", "b"), "the page shows\nb"),
        (console("$ echo a; exit 3", "a"), "exit code 3"),
        (console("$ true", options=":class: fails\n"), "exit code 0"),
    ],
)
def test_untruth_is_told(reader: Reader, page: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        reader.follow(page)


def test_command_that_is_to_fail_does(reader: Reader) -> None:
    assert reader.follow(console("$ echo no; exit 1", "no", options=":class: fails\n")) == 1


def test_what_needs_more_than_there_is_is_left_out(reader: Reader) -> None:
    assert reader.follow(console("$ false", options=":class: in-a-guest\n")) == 0


def test_what_another_test_runs_is_left_out(reader: Reader) -> None:
    page = "<!-- shown by: tests/x.py -->\n" + console("$ false")
    assert [block.shown_by for block in blocks(page)] == ["tests/x.py"]
    assert reader.follow(page) == 0
