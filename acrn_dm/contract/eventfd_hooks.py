"""The two eventfd hooks as devices see them: a registry of kicks and calls for one virtual machine."""

from acrn_dm.base.irq import IoEventFd, IrqFd
from acrn_dm.base.records import define
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.plugins import PluginManager


@define(eq=False)
class EventFdHooks:
    """A ``base.irq.EventFdRegistry`` that asks the plugins."""

    plugins: PluginManager
    vm: Hypervisor

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register or unregister a kick. Raises HostError."""
        self.plugins.ioeventfd(self.vm, binding, assign)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register or unregister a call. Raises HostError."""
        self.plugins.irqfd(self.vm, binding, assign)
