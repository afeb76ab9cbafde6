"""The pytest plugin, as the test runs of plugin authors have it: one run, of which each test here looks at one."""

import subprocess
import sys
import textwrap

import pytest

AUTHORS_TESTS = """
    import attrs
    import pytest
    from acrn_dm import BarKind, DeviceType, PciFunction, PluginError, VirtioDevice, hookimpl

    class Mine(VirtioDevice):
        device_id = 4
        def handle_queue(self, queue):
            for chain in queue.pop_batch():
                size = 1 // len(chain.read())
                queue.push(chain, size)

    def test_driver(dm_driver):
        assert dm_driver(Mine).queue(0).transfer([b"a"], [1]).written == 1

    def test_untouched(dm_driver):
        driver = dm_driver(Mine, slot=7, start=False)
        assert (driver.function.slot, driver.status) == (7, 0)

    @pytest.mark.dm_machine(vcpus=3, virtio_msi=True)
    class TestMarked:
        @pytest.mark.dm_machine(vcpus=2)
        def test_marker(self, dm_machine):
            device = dm_machine.add(Mine, slot=3).device
            assert (device.context.vcpus, device.context.virtio_msi) == (2, True)

    def test_clock(dm_machine, dm_clock):
        ran = []
        dm_machine.main_loop.call_later(3600, lambda: ran.append(dm_clock.monotonic()))
        dm_machine.advance(3600)
        assert ran == [3600.0]

    def test_logged(dm_driver):
        queue = dm_driver(Mine).queue(0)
        queue.send([], [1])
        queue.kick()
        queue.driver.machine.settle()

    def test_expected(dm_machine, dm_driver):
        dm_machine.expect(ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            dm_driver(Mine).queue(0).transfer([], [1])

    class Raises(PciFunction):
        def __init__(self, context):
            super().__init__(context, vendor=0x1234, device=1, class_code=0xff0000)
            self.add_bar(0, 16, BarKind.MEM32, self)
        def read(self, offset, size):
            raise KeyError(offset)
        def write(self, offset, size, value):
            pass

    def test_access(dm_machine):
        dm_machine.add(Raises, slot=3)
        assert dm_machine.function(3).bar_read(0, 4, 4) == 0xffffffff

    machines = []

    def test_fails(dm_machine):
        machines.append(dm_machine)
        assert not dm_machine

    def test_after():
        assert machines[0].vm.state.name == "CLOSED"

    @attrs.frozen
    class Options:
        pass

    class Plugin:
        @hookimpl
        def acrn_dm_device_types(self):
            return [DeviceType(name="mine", summary="", config=Options, create=lambda o, c: Mine(c))]

    class Wrong:
        @hookimpl
        def acrn_dm_no_such_hook(self):
            pass

    def test_manager(dm_plugin_manager):
        assert {"mine", "virtio-blk"} <= dm_plugin_manager(Plugin()).device_types().keys()

    def test_wrong_plugin(dm_plugin_manager):
        with pytest.raises(PluginError, match="acrn_dm_no_such_hook"):
            dm_plugin_manager(Wrong())
"""


class Outcomes:
    """What each test of the author's came to: the phases that failed, with their text."""

    def __init__(self) -> None:
        self.failed: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        failed = self.failed.setdefault(report.nodeid.rpartition("::")[2], {})
        if report.failed:
            failed[report.when] = report.longreprtext


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("author")
    (folder / "test_mine.py").write_text(textwrap.dedent(AUTHORS_TESTS))
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q --strict-markers -p no:cacheprovider\n")
    seen = Outcomes()
    pytest.main([str(folder), "--import-mode=importlib", "-c", str(folder / "pytest.ini")], plugins=[seen])
    return seen


def test_plugin_is_registered_and_imports_nothing_of_the_package() -> None:
    code = """
        import importlib.metadata, sys
        (entry,) = [e for e in importlib.metadata.entry_points(group="pytest11") if e.name == "acrn_dm"]
        entry.load()
        print([name for name in sys.modules if name.split(".")[0] in ("acrn_dm", "hypothesis")])
    """
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    "name",
    [
        "test_driver",
        "test_untouched",
        "test_marker",
        "test_clock",
        "test_expected",
        "test_after",
        "test_manager",
        "test_wrong_plugin",
    ],
)
def test_test_with_the_fixtures_passes(outcomes: Outcomes, name: str) -> None:
    assert outcomes.failed[name] == {}


def test_exception_that_was_logged_fails_the_test_at_its_end(outcomes: Outcomes) -> None:
    assert outcomes.failed["test_logged"].keys() == {"teardown"}
    text = outcomes.failed["test_logged"]["teardown"]
    assert "nobody asked for it:" in text
    assert "queue 0 failed: ZeroDivisionError: " in text


def test_access_that_raised_fails_the_test_once(outcomes: Outcomes) -> None:
    assert outcomes.failed["test_access"].keys() == {"teardown"}
    assert "KeyError: 4" in outcomes.failed["test_access"]["teardown"]


def test_test_that_fails_says_why_and_nothing_else(outcomes: Outcomes) -> None:
    assert outcomes.failed["test_fails"].keys() == {"call"}
