"""For every test run: the last line is a plain count that a script can read."""

from typing import Any


def pytest_unconfigure(config: Any) -> None:
    """Print ``N passed, N failed, N skipped`` behind pytest's own summary; an error counts as a failure."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or config.option.collectonly:
        return
    passed, failed, errors, skipped = (len(reporter.stats.get(k, ())) for k in ("passed", "failed", "error", "skipped"))
    print(f"{passed} passed, {failed + errors} failed, {skipped} skipped")
