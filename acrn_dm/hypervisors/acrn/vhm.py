"""ACRN 1.x and 2.x as a plugin: the hypervisor ``vhm``, through ``/dev/acrn_vhm`` (``module.vhm_abi``)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import HypervisorOptions, HypervisorType
from acrn_dm.hypervisors.acrn.hsm import unusable
from acrn_dm.hypervisors.acrn.module.interface import ACRN_OPTIONS, IOAPIC_PINS, VHM_PATH

if TYPE_CHECKING:
    from acrn_dm.hypervisors.acrn.vm import AcrnVm


def open_vm(options: HypervisorOptions) -> "AcrnVm":
    """Make a virtual machine as *options* say. Raises HostError. Physical CPUs are the hypervisor's choice."""
    from acrn_dm.hypervisors.acrn.cpus import Placement  # noqa: PLC0415  # what runs no guest here does without
    from acrn_dm.hypervisors.acrn.module.vhm_abi import VHM  # noqa: PLC0415
    from acrn_dm.hypervisors.acrn.vm import AcrnVm  # noqa: PLC0415

    return AcrnVm.open(VHM, options, Placement(affinity=0, apic_ids=()))


@hookimpl
def acrn_dm_hypervisor_types() -> Iterable[HypervisorType]:
    """Offer ``vhm``; below ``hsm``, as some kernels have both names for the new interface."""
    return [
        HypervisorType(
            name="vhm",
            summary="ACRN before 3.0 (/dev/acrn_vhm)",
            probe=lambda: unusable(VHM_PATH),
            open=open_vm,
            ioapic_pins=IOAPIC_PINS,
            rank=15,
            needs_pit=True,
            takes=ACRN_OPTIONS,
            resumes=False,
        )
    ]
