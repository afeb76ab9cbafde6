"""The eventfds of a virtual machine: kicks bound to guest writes, and calls bound to lines and messages.

KVM binds a call to a GSI only; a message gets one from the routing table, for as long as calls use it.
"""

import errno

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.base.records import define
from acrn_dm.hypervisors.kvm.errors import failed
from acrn_dm.hypervisors.kvm.gsi_routes import Chips, MsiRoutes, pin_routes
from acrn_dm.hypervisors.kvm.module._vm import CHIP_IOAPIC, CHIP_PIC_MASTER, CHIP_PIC_SLAVE, Vm

CHIPS = Chips(pic_master=CHIP_PIC_MASTER, pic_slave=CHIP_PIC_SLAVE, ioapic=CHIP_IOAPIC)


@define(eq=False)
class Bindings:
    """All bindings since power-on, which the kernel drops with the virtual machine. Not locked: the owner is."""

    _vm: Vm
    _routes: MsiRoutes
    _irqfds: set[tuple[int, MsiMessage | IntxLine]] = attrs.field(factory=set, init=False)

    @classmethod
    def on(cls, vm: Vm, routes: int) -> "Bindings":
        """None yet; the kernel has room for so many *routes*. Raises HostError."""
        vm.set_gsi_routing(pin_routes(CHIPS), [])
        return cls(vm, MsiRoutes(routes, lambda msis: vm.set_gsi_routing(pin_routes(CHIPS), msis)))

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register / unregister a kick. Raises HostError (EEXIST for a duplicate, ENOENT for an unknown one)."""
        pio = binding.space is Space.PIO
        self._vm.ioeventfd(binding.fd, binding.addr, binding.len, binding.datamatch, pio, assign)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register / unregister a call. Raises HostError (EBUSY for an eventfd in use, ENOENT for an unknown one)."""
        if assign:
            self._assign(binding)
        else:
            self._deassign(binding)

    def _assign(self, binding: IrqFd) -> None:
        target = binding.target
        gsi = target.gsi if isinstance(target, IntxLine) else self._routes.acquire(target)
        try:
            self._vm.irqfd(binding.fd, gsi, binding.resample_fd, True)
        except HostError:
            if isinstance(target, MsiMessage):
                self._routes.release(target)
            raise
        self._irqfds.add((binding.fd, target))

    def _deassign(self, binding: IrqFd) -> None:
        target = binding.target
        if (binding.fd, target) not in self._irqfds:  # KVM itself ignores it
            raise failed("KVM_IRQFD", errno.ENOENT)
        gsi = target.gsi if isinstance(target, IntxLine) else self._routes.gsi(target)
        self._vm.irqfd(binding.fd, gsi, None, False)
        self._irqfds.remove((binding.fd, target))
        if isinstance(target, MsiMessage):
            self._routes.release(target)
