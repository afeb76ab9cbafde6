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
