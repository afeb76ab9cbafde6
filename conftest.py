"""For every test run: the last line is a plain count that a script can read, and what collection has made is left out
of what the garbage collector looks through.
"""

import gc
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent
PLUGINS = ROOT / "plugins"
LAB = ("tests/lab", "tests/boot")  # where tests of the lab are: the parts that have them look nowhere else


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
    """The whole conformance suite takes seconds for each package in ``plugins/``: not in the fast part. A test of the
    lab that is outside its folders would be run by nobody: UsageError.
    """
    for item in items:
        if item.get_closest_marker("lab") and not any(item.path.is_relative_to(ROOT / folder) for folder in LAB):
            raise pytest.UsageError(f"{item.nodeid}: tests of the lab are in {' and '.join(LAB)}")
        if item.name == "test_device_conforms" and item.path.is_relative_to(PLUGINS):
            item.add_marker("stress")
