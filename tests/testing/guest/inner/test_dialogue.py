"""Commands and answers, with the guest's own script at the other end."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.testing.guest.errors import CommandFailed, HarnessError, HarnessTimeout
from acrn_dm.testing.guest.host import Host
from acrn_dm.testing.guest.inner.dialogue import Dialogue
from tests.testing.guest.inner.port import Port


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    made = Port(tmp_path)
    yield made
    made.close()


@pytest.fixture
def guest(port: Port) -> Dialogue:
    """It is up."""
    dialogue = Dialogue(port, lambda: "; LAST WORDS")
    dialogue.wait_up(10.0)
    return dialogue


def test_output_of_both_kinds_comes_as_the_answer(guest: Dialogue) -> None:
    assert guest.run("echo out; echo err >&2; echo", 10.0) == "out\nerr"


def test_each_answer_is_that_of_its_command(guest: Dialogue) -> None:
    assert [guest.run(f"echo {word}", 10.0) for word in ("one", "two")] == ["one", "two"]


def test_lines_run_as_they_stand(guest: Dialogue) -> None:
    lines = """
cat << end
a 'quoted' "\\$word"
  indented
end
echo 'over
lines'
"""
    assert guest.run(lines, 10.0) == "a 'quoted' \"$word\"\n  indented\nover\nlines"


def test_command_has_nothing_to_read(guest: Dialogue) -> None:
    assert guest.run("cat; echo end", 10.0) == "end"


def test_command_that_fails_raises_with_status_and_output(guest: Dialogue) -> None:
    with pytest.raises(CommandFailed, match=r"'echo why; \(exit 7\)' in the guest ended with 7: why") as raised:
        guest.run("echo why; (exit 7)", 10.0)
    assert (raised.value.status, raised.value.output) == (7, "why")


def test_command_past_its_time_raises_and_its_answer_is_not_the_next_ones(guest: Dialogue, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(HarnessTimeout, match=r"no answer from the guest to 'cat fifo' within 0.05 s: ; LAST WORDS"):
        guest.run("cat fifo", 0.05)
    (tmp_path / "fifo").write_text("late\n")
    assert guest.run("echo next", 10.0) == "next"


def test_guest_that_reboots_by_itself_is_noticed(guest: Dialogue, port: Port) -> None:
    port.say("END 0 0\n")
    with pytest.raises(HarnessError, match="the guest has rebooted by itself; LAST WORDS"):
        guest.run("echo one", 10.0)


def test_acrn_dm_that_ends_is_noticed(guest: Dialogue, port: Port) -> None:
    port.signal(11)
    with pytest.raises(HarnessError, match="acrn-dm ended with -11; LAST WORDS"):
        guest.run("cat < /dev/zero > /dev/null", 10.0)


def test_guest_that_does_not_come_up_raises_with_the_last_words() -> None:
    silent = Host().spawn(["cat"])
    with pytest.raises(HarnessTimeout, match=r"the guest did not come up within 0 s: ; LAST WORDS"):
        Dialogue(silent, lambda: "; LAST WORDS").wait_up(0.0)
    silent.signal(9)
    silent.wait()
