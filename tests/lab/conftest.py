"""The `lab` fixture: one outer VM for all tests that use it; the consoles in the report of one that fails; and a second
attempt for that one.

The outer VM is QEMU 7.2's emulation of nested virtualization on two threads. It was seen to hang (``agent.hold_kvm``)
and to lose pages behind a world switch (``vm.CPU``, which avoids it). So a lab test that fails is made once more, in an
outer VM of its own, and its first failure stands at the end of the run: look at it, it may be acrn-dm's.
"""

import contextlib
import time
from collections.abc import Generator, Iterator

import pytest
from _pytest.runner import runtestprotocol

import lab.paths
from acrn_dm.testing.guest.consoles import console_tails
from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.debian import Kernel, debian_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from acrn_dm.testing.guest.qemu import program

for _module in ("machines.small_machine", "machines.firmware", "machines.windows", "hsm.block_device"):
    pytest.register_assert_rewrite(f"tests.lab.{_module}")  # its assertions are those of the tests

_REPORT = pytest.StashKey[str]()
_STARTED = pytest.StashKey[float]()
_SECOND = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the outer VM is a lab test."""
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()):
            item.add_marker("lab")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Tests in the outer VM have two attempts; the first one's failure is printed."""
    if "lab" not in getattr(item, "fixturenames", ()):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    failed = next((report for report in reports if report.failed), None)
    if failed is not None:
        item.config.stash.setdefault(_SECOND, []).append(f"{item.nodeid}: {failed.longrepr}")
        with contextlib.suppress(Exception):
            item.session._setupstate.teardown_exact(None)  # the outer VM, too
        item._initrequest()  # type: ignore[attr-defined]
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(scope="session")
def lab_kernel() -> Kernel:
    """The stock kernel, fetched on first use."""
    try:
        program()
        return debian_kernel()
    except HarnessUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def lab(lab_kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[OuterVm]:
    """The outer VM, up and shared: leave nothing behind in it that would disturb the next test."""
    with contextlib.ExitStack() as stack:
        try:
            vm = stack.enter_context(OuterVm(memory_mib=6144))
        except HarnessUnavailable as error:
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
    for first in config.stash.get(_SECOND, []):
        terminalreporter.section("lab: made a second time, because of")
        terminalreporter.write_line(first[-6000:])
    if _REPORT in config.stash:
        terminalreporter.write_line(config.stash[_REPORT])
