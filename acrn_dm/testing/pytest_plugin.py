"""The parts of the pytest plugin's fixtures. The plugin itself, ``acrn_dm_pytest``, stands outside the package, so that
a test run that uses none of them imports nothing of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.types import DeviceType
from acrn_dm.testing.clock import VirtualClock
from acrn_dm.testing.driver import VirtioDriver
from acrn_dm.testing.exceptions import LoggedExceptions
from acrn_dm.testing.machine import Factory, Options, SimMachine

FIRST_SLOT, LAST_SLOT = 3, 31


class GuardedMachine(SimMachine):
    """The machine of ``dm_machine``: one that fails its test for an exception that it logged and nobody asked for.

    ``expect`` names those that the test provokes.
    """

    def __init__(self, logged: LoggedExceptions, **options: Any) -> None:
        super().__init__(**options)
        self._logged = logged

    def expect(self, *errors: type[BaseException]) -> None:
        """Devices may raise these in this test."""
        self._logged.expect(*errors)

    def close(self) -> None:
        """Close everything. Accesses that raised count as logged exceptions do."""
        try:
            super().close()
        except AssertionError:
            if not self._logged.found:
                raise


def machine(clock: VirtualClock, options: Mapping[str, Any]) -> Iterator[GuardedMachine]:
    """A machine on *clock*, closed when the test is over."""
    with LoggedExceptions() as logged:
        made = GuardedMachine(logged, **{"clock": clock, **options})
        try:
            yield made
        finally:
            made.close()
    logged.check()


class Drivers:
    """The maker of drivers in one machine: each call puts a device into a slot of its own and starts a driver of it."""

    def __init__(self, machine: SimMachine) -> None:
        self._machine = machine

    def __call__(
        self,
        what: DeviceType | Factory | str,
        text: Options = "",
        *,
        slot: int | None = None,
        legacy: bool = False,
        msix: bool = True,
        features: int | None = None,
        start: bool = True,
    ) -> VirtioDriver:
        """Add *what* as ``SimMachine.add`` does (in *slot*, or the first free one from 3 on; before the machine's first
        driver) and return a driver of it, modern or *legacy*, that has negotiated *features* (default: all offered) and
        set up every queue; without *start*, one that has not touched the device.
        """
        taken = {function.context.bdf.slot for function in self._machine.bus.functions}
        place = next(n for n in range(FIRST_SLOT, LAST_SLOT + 1) if n not in taken) if slot is None else slot
        self._machine.add(what, text, slot=place)
        make = self._machine.driver_legacy if legacy else self._machine.driver
        driver = make(place, msix=msix)
        if start:
            driver.start(features)
        return driver


def plugin_manager(*plugins: object, entry_points: bool = False) -> PluginManager:
    """A manager with the built-in plugins, then *plugins* (modules or objects) and, with *entry_points*, the installed
    ones. Raises PluginError for one that can't be registered.
    """
    return make_plugin_manager(entry_points=entry_points, extra=plugins)
