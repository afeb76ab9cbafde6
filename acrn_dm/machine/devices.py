"""The devices of one machine: how a PCI function is made, and what is done to all of them at once, those of the PCI bus
and the platform's chips beside it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from acrn_dm.backends.helper import PROCESS
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import define
from acrn_dm.contract.drivers import guarded
from acrn_dm.contract.plugins import PluginManager, blame
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.devices.platform import Platform
from acrn_dm.machine.resolve import ResolvedDevice
from acrn_dm.pci.bus import PciBus
from acrn_dm.pci.function import PciFunction
from acrn_dm.pci.quiesce import quiesce
from acrn_dm.virtio.choice import role_problem, unchosen
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import LinkSwitch, MediumSlot, RateLimited, Threads
from acrn_dm.virtio.pci.transport import VirtioPci
from acrn_dm.virtio.placement import Placed, Placement


def make_function(resolved: ResolvedDevice, plugins: PluginManager) -> PciFunction:
    """Make one device and, for a virtio device, the PCI transport in front of it. Raises ConfigError."""
    device = resolved.create()
    if isinstance(device, VirtioDevice):
        return _virtio_function(device, resolved, plugins)
    if not isinstance(device, PciFunction):
        raise ConfigError(
            f"{plugins.provider(resolved.type)} made a {type(device).__name__}, which is no device", option="-s"
        )
    for asked, lacks, value in _virtio_only(resolved):
        if asked:
            raise ConfigError(f"no virtio device, so {lacks}", option=device.name, value=value)
    _refuse_role(resolved.context, device.placement if isinstance(device, Placed) else None)
    return device


def _virtio_function(device: VirtioDevice, resolved: ResolvedDevice, plugins: PluginManager) -> PciFunction:
    context = resolved.context
    _refuse_role(context, device.placement)
    if context.iothread.count > 1 and not isinstance(device, Threads):
        raise ConfigError("its queues are served by one thread", option=f"{device.name} iothread")
    if resolved.wish is not None:
        from acrn_dm.backends.helper.make import away_function  # noqa: PLC0415

        return away_function(device, resolved.whole, context, resolved.wish, plugins.choice)
    return VirtioPci(device, context, plugins.backend_types(context.backend))


def _virtio_only(resolved: ResolvedDevice) -> Iterator[tuple[bool, str, object]]:
    """Options that virtio devices alone have: whether *resolved* has it, what others lack, and what the user wrote."""
    context = resolved.context
    yield context.backend is not None, "it has no backend", f"backend={context.backend}"
    yield resolved.wish is not None, "it has no process of its own", None
    yield bool(resolved.strict), "no driver of one is checked", "strict=on"
    yield bool(resolved.switched), "it has no such feature", next(iter(resolved.switched), None)
    yield bool(context.iothread.count or context.io_poll_us), "it has no I/O threads", None


def _refuse_role(context: DeviceContext, placement: Placement | None) -> None:
    """Raises ConfigError for ``server=`` and ``wait=`` where they mean nothing."""
    problem = role_problem(placement, context)
    if problem is not None:
        raise ConfigError(problem, option=context.name)


@define(eq=False)
class Devices:
    """The machine's devices and what is done to each of them, in the order of bus, slot and function, each under its
    lock.
    """

    bus: PciBus
    platform: Platform
    providers: Mapping[Bdf, str]  # which plugin offers the device at a place

    @property
    def functions(self) -> tuple[PciFunction, ...]:
        """All PCI functions by bus, slot and function."""
        return self.bus.functions

    def check(self, function: PciFunction) -> list[str]:
        """What *function* misses on this host, one line each. Raises PluginError."""
        with self._blame(function):
            return function.check()

    def realize(self, resources: Resources) -> None:
        """Put chips and functions on the buses, and let each open what it needs."""
        self.platform.realize(resources)
        for function in self.functions:
            with function.lock, self._blame(function):
                if function.complete_layout(resources):
                    self.bus.place(function)
        self.bus.attach(resources)
        for function in self.functions:
            with function.lock, self._blame(function):
                function.realize(resources)

    def insert_medium(self, bdf: Bdf, text: str) -> None:
        """Put the medium *text* into the empty slot of the device at *bdf*. Raises ConfigError, HostError."""
        function = self.bus.find(bdf)
        if not isinstance(function, VirtioPci):
            raise ConfigError(f"there is no virtio device at {bdf}", value=text)
        _refuse_away(function)
        with function.lock:
            if not isinstance(function.device, MediumSlot):
                raise ConfigError("takes no medium", option=function.name)
            function.device.insert_medium(text)

    def set_limits(self, bdf: Bdf, text: str) -> None:
        """Hold the disk at *bdf* to the limits in *text*, and to no others. Raises ConfigError, HostError."""
        function = self.bus.find(bdf)
        _refuse_away(function)
        if not isinstance(function, VirtioPci) or not isinstance(function.device, RateLimited):
            raise ConfigError(f"there is no disk at {bdf}", value=text)
        with function.lock:
            function.device.set_limits(text)

    def command_driver(self, bdf: Bdf, text: str) -> None:
        """Have the driver of the device at *bdf* (``driver=NAME``) do what *text* says. Raises ConfigError, HostError,
        PluginError.
        """
        function = self.bus.find(bdf)
        _refuse_away(function)
        chosen = function.context.driver if function is not None else None
        if chosen is None:
            raise ConfigError(f"there is no device with a driver at {bdf}", value=text)
        guarded.command(chosen, text)

    def set_link(self, bdf: Bdf, up: bool) -> None:
        """Whether the network card at *bdf* has a link. Raises ConfigError."""
        function = self.bus.find(bdf)
        _refuse_away(function)
        if not isinstance(function, VirtioPci) or not isinstance(function.device, LinkSwitch):
            raise ConfigError(f"there is no network card at {bdf}")
        with function.lock:
            function.device.set_link(up)

    def unchosen_backends(self, plugins: PluginManager) -> list[str]:
        """What to say of backends that plugins brought and no device here uses. Raises PluginError."""
        return unchosen(plugins, [(f.context, f.backend_type) for f in self.functions if isinstance(f, VirtioPci)])

    def window_changed(self) -> None:
        """The terminal has another size: tell the consoles on it."""
        for function in self.functions:
            with function.lock:
                function.window_changed()

    def quiesce(
        self,
        step: Callable[[float], object],
        *,
        seconds: float = math.inf,
        go_on: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Wait until nothing is in flight, as ``pci.quiesce``."""
        return quiesce(self.functions, step, seconds=seconds, go_on=go_on)

    def reset(self) -> None:
        """All is as after power-on."""
        self._reset_functions()
        self.platform.reset()
        self.bus.reset()

    def sleep(self) -> None:
        """S3: clock and power management keep their power, everything else is as after power-on."""
        self._reset_functions()
        self.platform.sleep()
        self.bus.reset()

    def closing(self) -> list[Callable[[], object]]:
        """The steps that give back what the functions opened, the last one first."""
        return [*(f.prepare_close for f in self.functions), *(f.close for f in reversed(self.functions))]

    def _reset_functions(self) -> None:
        for function in self.functions:
            with function.lock:
                function.reset()

    def _blame(self, function: PciFunction) -> AbstractContextManager[None]:
        where = self.providers.get(function.context.bdf, "added by the caller")
        return blame(f"{where}: {function.context.kind}")


def _refuse_away(function: PciFunction | None) -> None:
    """Raises ConfigError for a device that is somewhere else: nothing passes such orders on."""
    if isinstance(function, VirtioPci) and function.backend_type.name == PROCESS:
        raise ConfigError("is in a process of its own (process=on), which takes no orders", option=function.name)
