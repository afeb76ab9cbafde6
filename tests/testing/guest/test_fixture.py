"""What ``dm_guest`` says and when it skips, with a pytest that is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from acrn_dm.testing.guest import fixture
from acrn_dm.testing.guest import guests as module


class Terminal:
    """Pytest's terminal and its capturing, which hides all that is written while it is on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.captured = True

    @contextmanager
    def global_and_fixture_disabled(self) -> Iterator[None]:
        self.captured = False
        yield
        self.captured = True

    def ensure_newline(self) -> None:
        self.write_line("")

    def write_line(self, line: str) -> None:
        if not self.captured:
            self.lines.append(line)


class Config:
    """Pytest's configuration with these plugins."""

    def __init__(self, **plugins: Any) -> None:
        self.pluginmanager = self
        self.getplugin = plugins.get


def test_progress_is_shown_in_the_terminal_in_the_middle_of_a_test() -> None:
    terminal = Terminal()
    say = fixture.in_the_terminal(Config(terminalreporter=terminal, capturemanager=terminal))
    assert say is not None
    say("fetching")
    assert terminal.lines == ["", "dm_guest: fetching"]


def test_worker_without_a_terminal_shows_nothing() -> None:
    assert fixture.in_the_terminal(Config(capturemanager=Terminal())) is None


def test_fixture_skips_with_the_line_that_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.needs, "missing", lambda emulated: "no guest without busybox")
    with pytest.raises(pytest.skip.Exception, match=r"^no guest without busybox$"):
        next(fixture.guests(Config(), [], pytest.skip))


def test_host_that_lacks_what_one_way_needs_has_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where devices are served, QEMU may be fetched."""
    monkeypatch.setattr(module.probe, "probe", lambda: "no KVM")
    monkeypatch.setattr(module.needs, "missing", lambda emulated: "no guest without QEMU" if emulated else None)
    made = fixture.guests(Config(), [], pytest.skip)
    assert next(made).unavailable() == "no guest without QEMU"
    assert list(made) == []
