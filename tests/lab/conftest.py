"""The `lab` fixture: one outer VM for all tests that use it; and the consoles in the report of one that fails."""

import contextlib
import time
from collections.abc import Generator, Iterator

import pytest

from .errors import LabUnavailable
from .kernel import Kernel, debian_kernel
from .qemu import console_tails, program
from .vm import OuterVm

_REPORT = pytest.StashKey[str]()
_STARTED = pytest.StashKey[float]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the outer VM is a lab test."""
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()):
            item.add_marker("lab")


@pytest.fixture(scope="session")
def lab_kernel() -> Kernel:
    """The stock kernel, fetched on first use."""
    try:
        program()
        return debian_kernel()
    except LabUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def lab(lab_kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[OuterVm]:
    """The outer VM, up and shared: leave nothing behind in it that would disturb the next test."""
    with contextlib.ExitStack() as stack:
        try:
            vm = stack.enter_context(OuterVm(memory_mib=6144))
        except LabUnavailable as error:
            pytest.skip(str(error))
        first = f"up in {vm.boot_seconds:.1f} s, {vm.early_hangs} early hangs"
        yield vm
        request.config.stash[_REPORT] = (
            f"lab: outer VM {first}, {vm.restarts} restarts after hanging in use (kernel {lab_kernel.version})"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "setup":
        item.stash[_STARTED] = time.time() - report.duration
    if report.failed:
        for name, tail in console_tails(since=item.stash.get(_STARTED, 0.0)).items():
            report.sections.append((f"console {name}", tail))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _REPORT in config.stash:
        terminalreporter.write_line(config.stash[_REPORT])
