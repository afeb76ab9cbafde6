"""KVM as a plugin: the hypervisor ``kvm`` and its hooks."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeGuard

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.irq import IoEventFd, IrqFd
from acrn_dm.base.sandbox.needs import KVM, Needs
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.types import HypervisorOptions, HypervisorType
from acrn_dm.hypervisors.kvm import host_cpus
from acrn_dm.hypervisors.kvm.probe import probe

if TYPE_CHECKING:
    from acrn_dm.hypervisors.kvm.vm import KvmVm


def check(options: HypervisorOptions) -> list[str]:
    """What is missing on this host for *options*, one line each."""
    try:
        host_cpus.placement(options.cpu_affinity)
    except ConfigError as e:
        return [str(e)]
    return []


def open_vm(options: HypervisorOptions) -> "KvmVm":
    """Make a virtual machine as *options* say; its module is imported when one is wanted. Raises HostError and
    ConfigError.
    """
    from acrn_dm.hypervisors.kvm.vm import KvmVm  # noqa: PLC0415

    return KvmVm.open(
        vcpus=options.vcpus,
        name=options.name,
        apic_ids=options.apic_ids,
        pins=host_cpus.placement(options.cpu_affinity),
        allow_slow=options.allow_slow,
    )


def _of_kvm(vm: Hypervisor) -> "TypeGuard[KvmVm]":
    """Whether *vm* is one of these: none is, as long as nobody has imported their module."""
    module = sys.modules.get(f"{__package__}.vm")
    return module is not None and isinstance(vm, module.KvmVm)


@hookimpl
def acrn_dm_hypervisor_types() -> Iterable[HypervisorType]:
    """Offer ``kvm``."""
    summary, needs = "Linux KVM (/dev/kvm)", Needs(groups=[KVM])
    return [HypervisorType(name="kvm", summary=summary, probe=probe, open=open_vm, check=check, needs=needs, rank=10)]


@hookimpl
def acrn_dm_vhm_ioeventfd(vm: Hypervisor, binding: IoEventFd, assign: bool) -> bool | None:
    """Bind kicks in KVM."""
    if not _of_kvm(vm):
        return None
    vm.ioeventfd(binding, assign)
    return True


@hookimpl
def acrn_dm_vhm_irqfd(vm: Hypervisor, binding: IrqFd, assign: bool) -> bool | None:
    """Bind calls in KVM."""
    if not _of_kvm(vm):
        return None
    vm.irqfd(binding, assign)
    return True
