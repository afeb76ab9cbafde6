"""The pytest plugin, as the test runs of plugin authors have it."""

import subprocess
import sys
import textwrap

import pytest

pytest_plugins = ["pytester"]


DEVICE = """
    import logging
    import pytest
    from acrn_dm import VirtioDevice

    class Mine(VirtioDevice):
        device_id = 4
        def handle_queue(self, queue):
            for chain in queue.pop_batch():
                size = 1 // len(chain.read())
                queue.push(chain, size)
"""


def run(pytester: pytest.Pytester, tests: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(textwrap.dedent(DEVICE) + textwrap.dedent(tests))
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *args)


def test_plugin_is_registered_and_imports_nothing_of_the_package() -> None:
    code = """
        import importlib.metadata, sys
        (entry,) = [e for e in importlib.metadata.entry_points(group="pytest11") if e.name == "acrn_dm"]
        entry.load()
        print([name for name in sys.modules if name.split(".")[0] in ("acrn_dm", "hypothesis")])
    """
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_driver_of_a_device_is_had_with_one_line(pytester: pytest.Pytester) -> None:
    tests = """
        def test_mine(dm_driver):
            assert dm_driver(Mine).queue(0).transfer([b"a"], [1]).written == 1

        def test_two(dm_driver):
            first, second = dm_driver(Mine, start=False), dm_driver(Mine)
            assert (first.function.slot, second.function.slot) == (3, 4)
            assert (first.status, second.status & 4) == (0, 4)
    """
    run(pytester, tests).assert_outcomes(passed=1, failed=1)


def test_machine_takes_its_options_from_the_closest_marker(pytester: pytest.Pytester) -> None:
    tests = """
        pytestmark = pytest.mark.dm_machine(vcpus=3, virtio_msi=True)

        @pytest.mark.dm_machine(vcpus=2)
        def test_mine(dm_machine):
            device = dm_machine.add(Mine, slot=3).device
            assert (device.context.vcpus, device.context.virtio_msi) == (2, True)
    """
    run(pytester, tests, "--strict-markers").assert_outcomes(passed=1)


def test_machine_is_on_the_clock(pytester: pytest.Pytester) -> None:
    tests = """
        def test_mine(dm_machine, dm_clock):
            ran = []
            dm_machine.main_loop.call_later(3600, lambda: ran.append(dm_clock.monotonic()))
            dm_machine.advance(3600)
            assert ran == [3600.0]
    """
    run(pytester, tests).assert_outcomes(passed=1)


def test_exception_that_was_logged_fails_the_test_at_its_end(pytester: pytest.Pytester) -> None:
    tests = """
        def test_mine(dm_driver):
            queue = dm_driver(Mine).queue(0)
            queue.send([], [1])
            queue.kick()
            queue.driver.machine.settle()
    """
    result = run(pytester, tests)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*nobody asked for it:*", "*queue 0 failed: ZeroDivisionError: *"])


def test_exception_that_the_test_expects_does_not(pytester: pytest.Pytester) -> None:
    tests = """
        def test_mine(dm_machine, dm_driver):
            dm_machine.expect(ZeroDivisionError)
            with pytest.raises(ZeroDivisionError):
                dm_driver(Mine).queue(0).transfer([], [1])
    """
    run(pytester, tests).assert_outcomes(passed=1)


def test_access_that_raised_fails_the_test_once(pytester: pytest.Pytester) -> None:
    tests = """
        from acrn_dm import BarKind, PciFunction

        class Raises(PciFunction):
            def __init__(self, context):
                super().__init__(context, vendor=0x1234, device=1, class_code=0xff0000)
                self.add_bar(0, 16, BarKind.MEM32, self)
            def read(self, offset, size):
                raise KeyError(offset)
            def write(self, offset, size, value):
                pass

        def test_mine(dm_machine):
            dm_machine.add(Raises, slot=3)
            assert dm_machine.function(3).bar_read(0, 4, 4) == 0xffffffff
    """
    result = run(pytester, tests)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*nobody asked for it:*", "*KeyError: 4*"])


def test_machine_is_closed_after_a_test_that_failed(pytester: pytest.Pytester) -> None:
    tests = """
        machines = []

        def test_fails(dm_machine):
            machines.append(dm_machine)
            assert not dm_machine

        def test_after():
            assert machines[0].vm.state.name == "CLOSED"
    """
    run(pytester, tests).assert_outcomes(passed=1, failed=1)


def test_plugin_manager_has_the_given_plugins_beside_the_built_in_ones(pytester: pytest.Pytester) -> None:
    tests = """
        import attrs
        from acrn_dm import DeviceType, PluginError, hookimpl

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

        def test_mine(dm_plugin_manager):
            assert {"mine", "virtio-blk"} <= dm_plugin_manager(Plugin()).device_types().keys()

        def test_wrong(dm_plugin_manager):
            with pytest.raises(PluginError, match="acrn_dm_no_such_hook"):
                dm_plugin_manager(Wrong())
    """
    run(pytester, tests).assert_outcomes(passed=2)
