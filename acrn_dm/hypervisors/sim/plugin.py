"""The simulation as a plugin: the hypervisor ``sim`` and its hooks."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeGuard

from acrn_dm.base.irq import IoEventFd, IrqFd
from acrn_dm.base.sandbox.needs import Needs
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.types import HypervisorOptions, HypervisorType

if TYPE_CHECKING:
    from acrn_dm.hypervisors.sim.vm import SimVm


def open_vm(options: HypervisorOptions) -> "SimVm":
    """Make a simulated machine as *options* say; its module is imported when one is wanted."""
    from acrn_dm.hypervisors.sim.vm import SimVm  # noqa: PLC0415

    return SimVm(name=options.name, vcpus=options.vcpus)


def _simulated(vm: Hypervisor) -> "TypeGuard[SimVm]":
    """Whether *vm* is one of these: none is, as long as nobody has imported their module."""
    module = sys.modules.get(f"{__package__}.vm")
    return module is not None and isinstance(vm, module.SimVm)


@hookimpl
def acrn_dm_hypervisor_types() -> Iterable[HypervisorType]:
    """Offer ``sim``, never chosen automatically: no guest runs in it."""
    summary = "no vCPUs: a test in this process is the guest"
    return [
        HypervisorType(
            name="sim",
            summary=summary,
            probe=lambda: None,
            open=open_vm,
            runs_guests=False,
            needs=Needs(),
            rank=-1,
        )
    ]


@hookimpl
def acrn_dm_vhm_ioeventfd(vm: Hypervisor, binding: IoEventFd, assign: bool) -> bool | None:
    """Bind kicks in the simulation."""
    if not _simulated(vm):
        return None
    vm.ioeventfd(binding, assign)
    return True


@hookimpl
def acrn_dm_vhm_irqfd(vm: Hypervisor, binding: IrqFd, assign: bool) -> bool | None:
    """Bind calls in the simulation."""
    if not _simulated(vm):
        return None
    vm.irqfd(binding, assign)
    return True
