"""From what plugins offer to the parts of one machine: which hypervisor, which functions, who binds eventfds."""

import attrs

from acrn_dm.config import MachineConfig
from acrn_dm.errors import ConfigError
from acrn_dm.hypervisors.base import Hypervisor
from acrn_dm.irq import IoEventFd, IrqFd
from acrn_dm.pci.function import PciFunction
from acrn_dm.plugins import PluginManager
from acrn_dm.resolve import ResolvedDevice
from acrn_dm.types import HypervisorType
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.transport_pci import VirtioPci


@attrs.define(eq=False)
class EventFdHooks:
    """The machine's face of the two eventfd hooks (``irq.EventFdRegistry``)."""

    plugins: PluginManager
    vm: Hypervisor

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register or unregister a kick. Raises HostError."""
        self.plugins.ioeventfd(self.vm, binding, assign)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register or unregister a call. Raises HostError."""
        self.plugins.irqfd(self.vm, binding, assign)


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
    reasons = {t.name: t.probe() for t in candidates}
    usable = [t for t in candidates if reasons[t.name] is None]
    if not usable:
        text = "; ".join(f"{name}: {why}" for name, why in reasons.items()) or "none is installed"
        raise ConfigError(f"no hypervisor can be used here: {text}", option="--hypervisor", value="auto")
    return usable[0]


def make_function(resolved: ResolvedDevice, plugins: PluginManager) -> PciFunction:
    """Make one device and, for a virtio device, the PCI transport in front of it."""
    device = resolved.type.create(resolved.options, resolved.context)
    if isinstance(device, VirtioDevice):
        return VirtioPci(device, resolved.context, plugins.backend_types())
    if isinstance(device, PciFunction):
        return device
    raise ConfigError(
        f"{plugins.provider(resolved.type)} made a {type(device).__name__}, which is no device", option="-s"
    )
