"""The pytest plugin of acrn_dm: fixtures for tests of devices, backends and hypervisors.

It is installed with the package and loaded by every pytest of the environment (entry point ``pytest11``), so it stands
outside of ``acrn_dm`` and imports nothing of it until a fixture is used. What the fixtures do is in
``acrn_dm.testing.pytest_plugin``.

``@pytest.mark.dm_machine(vcpus=2, virtio_msi=True)`` on a test, a class or a module: options of ``SimMachine``.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from acrn_dm.contract.plugins import PluginManager
    from acrn_dm.testing.clock import VirtualClock
    from acrn_dm.testing.guest import Guests
    from acrn_dm.testing.pytest_plugin import Drivers, GuardedMachine


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "dm_machine(**options): what SimMachine gets that the fixture dm_machine makes")


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
    guest by a fixture of scope "module" that has such a ``with`` and yields. Files below ``tmp_path`` are the same for
    the device. Skips with the line that names what is missing. See ``acrn_dm.testing.guest.Guests`` and ``Guest``.
    """
    from acrn_dm.testing.guest import fixture  # noqa: PLC0415

    shares = [tmp_path_factory.getbasetemp()]
    yield from fixture.guests(pytestconfig, shares, pytest.skip)
