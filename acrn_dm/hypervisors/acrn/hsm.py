"""ACRN through ``/dev/acrn_hsm``, the Hypervisor Service Module of the Service VM's kernel (Linux 5.12 and later)."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeGuard

from acrn_dm.base.errors import AcrnDmError
from acrn_dm.base.irq import IoEventFd, IrqFd
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.types import HypervisorOptions, HypervisorType
from acrn_dm.hypervisors.acrn.module.errors import OPEN_HINTS
from acrn_dm.hypervisors.acrn.module.interface import ACRN_OPTIONS, HSM_PATH, IOAPIC_PINS

if TYPE_CHECKING:
    from acrn_dm.hypervisors.acrn.cpus import Placement
    from acrn_dm.hypervisors.acrn.vm import AcrnVm

RANK = 20  # where this device exists, nothing else can run a guest


def unusable(path: str, opener: Callable[[str, int], int] = os.open) -> str | None:
    """Say in one line why the device file *path* can't be used; None if it can. Opening it creates nothing yet."""
    try:
        os.close(opener(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        why = f"no {path}" if isinstance(e, FileNotFoundError) else f"opening {path}: {e.strerror}"
        hint = OPEN_HINTS.get(e.errno or 0)
        return f"{why}: {hint}" if hint else why
    return None


def probe() -> str | None:
    """Say why ACRN can't be used here; None if it can."""
    return unusable(HSM_PATH)


def placement(options: HypervisorOptions) -> "Placement":
    """Where the virtual machine's CPUs are. Raises ConfigError and HostError."""
    from acrn_dm.hypervisors.acrn.cpus import host_lapic_ids, place  # noqa: PLC0415  # not asked on other hypervisors

    return place(options.cpu_affinity, host_lapic_ids())


def check(options: HypervisorOptions) -> list[str]:
    """What is missing on this host for *options*, one line each."""
    try:
        placement(options)
    except AcrnDmError as e:
        return [str(e)]
    return []


def open_vm(options: HypervisorOptions) -> "AcrnVm":
    """Make a virtual machine as *options* say; its module is imported when one is wanted. Raises HostError and
    ConfigError.
    """
    from acrn_dm.hypervisors.acrn.module.abi import HSM  # noqa: PLC0415
    from acrn_dm.hypervisors.acrn.vm import AcrnVm  # noqa: PLC0415

    return AcrnVm.open(HSM, options, placement(options))


def _of_acrn(vm: Hypervisor) -> "TypeGuard[AcrnVm]":
    """Whether *vm* is one of these: none is, as long as nobody has imported their module."""
    module = sys.modules.get(f"{__package__}.vm")
    return module is not None and isinstance(vm, module.AcrnVm)


@hookimpl
def acrn_dm_hypervisor_types() -> Iterable[HypervisorType]:
    """Offer ``hsm``."""
    return [
        HypervisorType(
            name="hsm",
            summary="ACRN (/dev/acrn_hsm)",
            probe=probe,
            open=open_vm,
            check=check,
            ioapic_pins=IOAPIC_PINS,
            rank=RANK,
            needs_pit=True,
            takes=ACRN_OPTIONS,
            resumes=False,
        )
    ]


@hookimpl
def acrn_dm_vhm_ioeventfd(vm: Hypervisor, binding: IoEventFd, assign: bool) -> bool | None:
    """Bind kicks in ACRN's kernel module, of either interface."""
    if not _of_acrn(vm):
        return None
    vm.ioeventfd(binding, assign)
    return True


@hookimpl
def acrn_dm_vhm_irqfd(vm: Hypervisor, binding: IrqFd, assign: bool) -> bool | None:
    """Bind calls in ACRN's kernel module, of either interface."""
    if not _of_acrn(vm):
        return None
    vm.irqfd(binding, assign)
    return True
