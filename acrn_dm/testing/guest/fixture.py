"""Guests for a run of pytest, without pytest: ``acrn_dm_pytest`` has the fixture ``dm_guest`` itself."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from acrn_dm.testing.guest.guests import Guests


def guests(config: Any, shares: Sequence[Path], skip: Callable[[str], object]) -> Iterator[Guests]:
    """Guests for a run of pytest with that *config*; *skip* is called with the reason where there can be none."""
    with Guests(shares=shares, say=in_the_terminal(config), skip=skip) as made:
        if (reason := made.unavailable()) and made.unavailable(served=True):
            skip(reason)
        yield made


def in_the_terminal(config: Any) -> Callable[[str], None] | None:
    """What shows a line in the middle of a test; None where there is no terminal, as in a worker of pytest-xdist."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")
    if reporter is None or capture is None:
        return None

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"dm_guest: {line}")

    return say
