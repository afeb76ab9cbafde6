"""What a line of a script means, and what is no line."""

from pathlib import Path

import pytest
from acrn_dm_replay import script
from acrn_dm_replay.script import AwaitLine, AwaitMessage, AwaitRestart, Expected, Get, Put, Read, Write

from acrn_dm import ConfigError, Space


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("out 0xcf8 4 0x80000000", Write(space=Space.PIO, addr=0xCF8, size=4, value=0x8000_0000)),
        ("in 0xcfc 2", Read(space=Space.PIO, addr=0xCFC, size=2, expected=None)),
        ("in 64 1 0x14", Read(space=Space.PIO, addr=64, size=1, expected=Expected(value=0x14, mask=0xFF))),
        ("load 0x80000000 8 3/1", Read(space=Space.MMIO, addr=1 << 31, size=8, expected=Expected(value=3, mask=1))),
        ("store 0xfee00000 4 0", Write(space=Space.MMIO, addr=0xFEE0_0000, size=4, value=0)),
        ("put 4096 00ff", Put(gpa=4096, data=b"\0\xff")),
        ("get 4096 2", Get(gpa=4096, length=2, expected=None)),
        ("get 4096 2 00FF", Get(gpa=4096, length=2, expected=b"\0\xff")),
        ("msi 0x41", AwaitMessage(data=0x41, seconds=10.0)),
        ("msi 0x41 0.5", AwaitMessage(data=0x41, seconds=0.5)),
        ("line 16 1", AwaitLine(gsi=16, level=True, seconds=10.0)),
        ("restart", AwaitRestart()),
    ],
)
def test_line_is_understood(line: str, action: object) -> None:
    (step,) = script.parse(f"\n  {line}  # why\n", "s")
    assert (step.action, step.text, step.where) == (action, line, "s:2")


def test_every_verb_is_in_the_readme() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    assert [f"{name} {verb.usage}" for name, verb in script.VERBS.items() if f"`{name} "[:-1] not in text] == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("read 1 2", "'read' is none of in, out"),
        ("in 0x60", "expected in PORT SIZE [VALUE[/MASK]]"),
        ("restart now", "expected restart"),
        ("in 0x60 8", "no access has 8 bytes; expected 1, 2, 4"),
        ("in 0xffff 2", "0xffff is no address there"),
        ("load -1 1", "-1 is no address there"),
        ("out 0x60 1 256", "256 does not fit into 1 bytes"),
        ("in 0x60 1 1/0x100", "0x100 does not fit into 1 bytes"),
        ("out 0x60 1 one", "'one' is no number"),
        ("put 0 0", "'0': expected bytes in hex"),
        ("get 0 2 00", "2 bytes: expected 1 to 1048576, and as many as are given"),
        ("get 0 0", "0 bytes: expected 1 to 1048576"),
        ("msi 1 soon", "'soon' is no time from 0 to 3600 s"),
        ("line 16 2", "'2' is no level; expected 0 or 1"),
    ],
)
def test_what_is_no_line_is_named_with_its_place(line: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        script.parse(f"restart\n{line}", "file.txt")
    assert str(caught.value).startswith("file.txt:2: ")
    assert says in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--script: '.*/absent': No such file"):
        script.load(tmp_path / "absent")


def test_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text"):
        script.load(tmp_path / "image")
