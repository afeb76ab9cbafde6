"""From what plugins offer to the parts of one machine: which hypervisor, which functions, who binds eventfds."""

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from acrn_dm.base.errors import AcrnDmError, ConfigError
from acrn_dm.base.files.claims import Claim, Claimant, conflicts, path_key, socket_claim
from acrn_dm.base.irq import IoEventFd, IrqFd
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.plugins import PluginManager, blame
from acrn_dm.contract.types import Bdf, HypervisorType
from acrn_dm.devices.platform import Platform
from acrn_dm.machine.plan import check_descriptors, check_memory, unprovided
from acrn_dm.machine.resolve import ResolvedDevice
from acrn_dm.management.service import check as check_sockets
from acrn_dm.pci.bus import PciBus
from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import MediumSlot
from acrn_dm.virtio.pci.transport import VirtioPci

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class EventFdHooks:
    """The machine's face of the two eventfd hooks (``base.irq.EventFdRegistry``)."""

    plugins: PluginManager
    vm: Hypervisor

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register or unregister a kick. Raises HostError."""
        self.plugins.ioeventfd(self.vm, binding, assign)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register or unregister a call. Raises HostError."""
        self.plugins.irqfd(self.vm, binding, assign)


def probe(hypervisor: HypervisorType, plugins: PluginManager) -> str | None:
    """Why *hypervisor* can't be used here. Raises PluginError."""
    with blame(f"{plugins.provider(hypervisor)}: {hypervisor.name}"):
        return hypervisor.probe()


def choose_hypervisor(config: MachineConfig, plugins: PluginManager) -> HypervisorType:
    """Return the hypervisor asked for, or for ``auto`` the usable one of highest rank. Raises ConfigError with the
    reasons.
    """
    types = plugins.hypervisor_types()
    if config.hypervisor != "auto":
        if config.hypervisor not in types:
            known = ", ".join(["auto", *sorted(types)])
            raise ConfigError(f"no such hypervisor; known: {known}", option="--hypervisor", value=config.hypervisor)
        return types[config.hypervisor]
    candidates = sorted((t for t in types.values() if t.rank >= 0), key=lambda t: -t.rank)
    reasons = {t.name: probe(t, plugins) for t in candidates}
    usable = [t for t in candidates if reasons[t.name] is None]
    if not usable:
        text = "; ".join(f"{name}: {why}" for name, why in reasons.items()) or "none is installed"
        raise ConfigError(f"no hypervisor can be used here: {text}", option="--hypervisor", value="auto")
    return usable[0]


def find_hypervisor(config: MachineConfig, plugins: PluginManager) -> tuple[HypervisorType | None, str | None]:
    """The hypervisor, and why it can't be opened here. Warns of options that it ignores.

    Raises ConfigError when one is asked for by a name that nobody offers.
    """
    try:
        hypervisor = choose_hypervisor(config, plugins)
    except ConfigError as e:
        if config.hypervisor != "auto":
            raise
        return None, str(e)
    reason = None if config.allow_slow else probe(hypervisor, plugins)
    ignored, refused = unprovided(config, hypervisor)
    for line in ignored:
        log.warning("%s", line)
    problem = None if reason is None else f"--hypervisor: {config.hypervisor!r}: {reason}"
    return hypervisor, problem or next(iter(refused), None)


def make_function(resolved: ResolvedDevice, plugins: PluginManager) -> PciFunction:
    """Make one device and, for a virtio device, the PCI transport in front of it. Raises ConfigError, PluginError."""
    with blame(f"{plugins.provider(resolved.type)}: {resolved.spec.kind}"):
        device = resolved.type.create(resolved.options, resolved.context)
        if isinstance(device, VirtioDevice):
            return VirtioPci(device, resolved.context, plugins.backend_types())
    if isinstance(device, PciFunction):
        if resolved.context.backend is not None:
            raise ConfigError(
                "no virtio device, so it has no backend",
                option=device.name,
                value=f"backend={resolved.context.backend}",
            )
        return device
    raise ConfigError(
        f"{plugins.provider(resolved.type)} made a {type(device).__name__}, which is no device", option="-s"
    )


def check_whole(config: MachineConfig, bus: PciBus, platform: Platform, firmware: Claimant) -> list[str]:
    """What is wrong with the parts together, one line each: things of the host that only one of them can have, and how
    many files they open.
    """
    terminal = [f"-l {port.name.lower()}" for port in platform.uarts if port.uses_terminal]
    terminal += [f.name for f in bus.functions if f.uses_terminal]
    text = "standard input and output can be used by one device only, not by"
    lines = [f"{text} {', '.join(terminal)}"] if len(terminal) > 1 else []
    users: list[tuple[str, object]] = [("--ovmf", firmware)]
    users += [(f"-l {port.name.lower()}", port) for port in platform.uarts]
    users += [(f.name, f.device if isinstance(f, VirtioPci) else f) for f in bus.functions]
    claims = [(name, claim) for name, user in users if isinstance(user, Claimant) for claim in user.claims()]
    if os.isatty(0):
        own = Claim(key=path_key(Path("/proc/self/fd/0")), what="this terminal")
        claims += [(name, own) for name in terminal[:1]]
    if config.command_monitor is not None:
        claims.append(("--cmd_monitor", socket_claim(config.command_monitor)))
    lines += conflicts(claims)
    return lines + check_sockets(config) + check_memory(config) + check_descriptors(config, bus)


def all_problems(checks: Iterable[Callable[[], list[str]]]) -> list[str]:
    """The lines of all *checks*; one that raises ConfigError has that line."""
    lines: list[str] = []
    for check in checks:
        try:
            lines += check()
        except ConfigError as e:
            lines.append(str(e))
    return lines


def insert_medium(functions: Iterable[PciFunction], bdf: Bdf, text: str) -> None:
    """Put the medium *text* into the empty slot of the device at *bdf*. Raises ConfigError, HostError."""
    function = next((f for f in functions if f.context.bdf == bdf), None)
    if not isinstance(function, VirtioPci):
        raise ConfigError(f"there is no virtio device at {bdf}", value=text)
    with function.lock:
        if not isinstance(function.device, MediumSlot):
            raise ConfigError("takes no medium", option=function.name)
        function.device.insert_medium(text)


def reset_all(functions: Iterable[PciFunction]) -> None:
    """Machine reset: every function as after power-on."""
    for function in functions:
        with function.lock:
            function.reset()


def do_all(steps: Iterable[Callable[[], object]]) -> None:
    """Do every step, whatever happened in those before; at the end raise the first error, and log the others."""
    errors: list[Exception] = []
    for step in steps:
        try:
            step()
        except Exception as e:
            errors.append(e)
    for error in errors[1:]:
        log.error("closing: %s", error, exc_info=None if isinstance(error, AcrnDmError) else error)
    if errors:
        raise errors[0]
