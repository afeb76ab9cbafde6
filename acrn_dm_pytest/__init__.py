"""The pytest plugin of acrn_dm: fixtures for tests of devices, backends and hypervisors.

It is installed with the package and loaded by every pytest of the environment (entry point ``pytest11``), so it stands
outside of ``acrn_dm`` and imports nothing of it until a fixture is used. What the fixtures do is in
``acrn_dm.testing.pytest_plugin``.

``pytest --acrn-dm-conform PACKAGE:DEVICE[,OPTIONS]`` judges an installed device by the conformance suite, each row a
test; ``conformance_tests`` makes such tests in a file of the author's own.

``@pytest.mark.dm_machine(vcpus=2, virtio_msi=True)`` on a test, a class or a module: options of ``SimMachine``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from acrn_dm.contract.plugins import PluginManager
    from acrn_dm.testing.clock import VirtualClock
    from acrn_dm.testing.conformance import Build
    from acrn_dm.testing.guest import Guests
    from acrn_dm.testing.pytest_plugin import Drivers, GuardedMachine


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the conformance suite."""
    group = parser.getgroup("acrn_dm", "conformance of acrn_dm devices")
    text = "judge this device by the conformance suite, each row a test: a module or an installed distribution, and a "
    text += "device with options as behind -s, e.g. acrn_dm_rng:virtio-rnd,source=/dev/zero (repeatable)"
    group.addoption("--acrn-dm-conform", metavar="PACKAGE:DEVICE", action="append", default=[], help=text)
    text = "write what each row came to, by device and section: JSON, or JUnit XML where the name ends in .xml"
    group.addoption("--acrn-dm-conform-report", metavar="FILE", default=None, help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and the rows, if a device is to be judged."""
    config.addinivalue_line("markers", "dm_machine(**options): what SimMachine gets that the fixture dm_machine makes")
    if config.getoption("acrn_dm_conform"):
        from acrn_dm_pytest.conform import ConformPlugin  # noqa: PLC0415

        config.pluginmanager.register(ConformPlugin(config), "acrn_dm_conform")


def conformance_tests(
    build: "Build",
    *,
    plugins: Sequence[object] = (),
    outside: Any = None,
    reasons: Mapping[str, str] | None = None,
) -> Callable[[str], None]:
    """A test function with a case for each row that a rule decides, called by its id::

        test_conformance = conformance_tests(lambda machine: machine.add(MyDevice, slot=SLOT))

    *build* puts the device into ``SLOT`` (3) of the machine it is given; it is called once when tests are collected,
    and for each case as often as its rule needs. The others are those of ``conform``. Raises what building and starting
    the device raises.
    """
    from acrn_dm.testing.conformance import Subject  # noqa: PLC0415
    from acrn_dm_pytest.rows import Rows  # noqa: PLC0415

    subject = Subject(build=build, plugins=plugins, outside=outside, reasons=dict(reasons or {}))
    subject.look()
    judged = Rows(subject)

    @pytest.mark.parametrize("row", judged.ruled)
    def test_conformance(row: str) -> None:
        judged.run(row)

    return test_conformance


@pytest.fixture
def dm_clock() -> "VirtualClock":
    """The time of ``dm_machine``: it stands still until ``advance``."""
    from acrn_dm.testing.clock import VirtualClock  # noqa: PLC0415

    return VirtualClock()


@pytest.fixture
def dm_machine(request: pytest.FixtureRequest, dm_clock: "VirtualClock") -> "Iterator[GuardedMachine]":
    """A ``SimMachine`` on ``dm_clock``, with what the marker ``dm_machine`` says. The end of the test closes it, and
    fails for an exception that was logged and not named with ``dm_machine.expect``, for memory that a device still
    holds, and for an access that raised.
    """
    from acrn_dm.testing import pytest_plugin  # noqa: PLC0415

    options: dict[str, object] = {}
    for mark in reversed(list(request.node.iter_markers("dm_machine"))):  # the closest one counts
        options |= mark.kwargs
    yield from pytest_plugin.machine(dm_clock, options)


@pytest.fixture
def dm_driver(dm_machine: "GuardedMachine") -> "Drivers":
    """Call it with a device, and its options, to get a started ``VirtioDriver``: ``dm_driver(MyDevice, "size=4k")``."""
    from acrn_dm.testing.pytest_plugin import Drivers  # noqa: PLC0415

    return Drivers(dm_machine)


@pytest.fixture
def dm_plugin_manager() -> "Callable[..., PluginManager]":
    """Call it with your plugins (modules or objects) to get a manager that has registered them beside the built-in
    ones: ``dm_plugin_manager(my_plugin).device_types()``.
    """
    from acrn_dm.testing.pytest_plugin import plugin_manager  # noqa: PLC0415

    return plugin_manager


@pytest.fixture(scope="session")
def dm_guest(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Guests]":
    """Call it to boot a stock Debian kernel with devices of acrn-dm and of the plugins that are installed here::

        def test_my_device_in_a_guest(dm_guest):
            with dm_guest(devices=["virtio-dice,sides=6"]) as guest:
                assert "virtio" in guest.run("ls /sys/bus/virtio/devices")

    On KVM where that is fit for guests, else in software emulation, where a boot takes half a minute: tests share a
    guest by a fixture of scope "module" that has such a ``with`` and yields. With ``served=True`` QEMU emulates the
    machine, and acrn-dm serves the devices to it: a boot of some seconds wherever it is. Files below
    ``tmp_path`` are the same for the device. Skips with the line that names what is missing. See
    ``acrn_dm.testing.guest.Guests`` and ``Guest``.
    """
    from acrn_dm.testing.guest import fixture  # noqa: PLC0415

    shares = [tmp_path_factory.getbasetemp()]
    yield from fixture.guests(pytestconfig, shares, pytest.skip)
