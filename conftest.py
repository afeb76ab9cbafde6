"""For every test run: the last line is a plain count that a script can read, and what collection has made is left out
of what the garbage collector looks through.
"""

import gc
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).resolve().parent / "plugins"


def pytest_unconfigure(config: Any) -> None:
    """Print ``N passed, N failed, N skipped`` behind pytest's own summary; an error counts as a failure."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or config.option.collectonly:
        return
    passed, failed, errors, skipped = (len(reporter.stats.get(k, ())) for k in ("passed", "failed", "error", "skipped"))
    print(f"{passed} passed, {failed + errors} failed, {skipped} skipped")


def pytest_collection_finish() -> None:
    """Ten thousand tests and the modules that they come from are a million objects, which stay: looking through them
    costs more than most tests do.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """The whole conformance suite takes seconds for each package in ``plugins/``: not in the fast part."""
    for item in items:
        if item.name == "test_device_conforms" and item.path.is_relative_to(PLUGINS):
            item.add_marker("stress")
