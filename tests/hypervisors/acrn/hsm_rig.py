"""One virtual machine on the stand-in of ACRN's kernel module, with memory and a recorder."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest

from acrn_dm.contract.registers import BootRegisters, Segment
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn.cpus import Placement, place
from acrn_dm.hypervisors.acrn.module.abi import HSM, Abi
from acrn_dm.hypervisors.acrn.vm import AcrnVm
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from tests.hypervisors.acrn.fake_acrn_vm import VcpuGoneError
from tests.hypervisors.acrn.fake_hsm import FakeHsm
from tests.hypervisors.guests import Recorder

HOST_IDS = tuple(range(0, 32, 2))  # LAPIC ids of a host whose processors have two threads, one of them off
FLAT = BootRegisters(
    rip=0x100_5000,
    code=Segment(selector=0x10, access=0xC09B),
    data=Segment(selector=0x18, access=0xC093),
    gdt_base=0x0FFF_D000,
    gdt_limit=0x1F,
    rsi=0x0FFF_F000,
)
MIB = 1 << 20


def open_vm(hsm: FakeHsm, *, vcpus: int = 1, abi: Abi = HSM, **options: Any) -> AcrnVm:
    """Open a VM on *hsm*; its CPUs are the first of the host's."""
    ids = HOST_IDS[:vcpus]
    made = HypervisorOptions(**{"name": "vm", "vcpus": vcpus, "cpu_affinity": ids, **options})
    placement = place(made.cpu_affinity, HOST_IDS) if abi is HSM else Placement(affinity=0, apic_ids=())
    return AcrnVm.open(abi, made, placement, open_device=hsm.open, sleep=hsm.slept.append)


def arguments(hsm: FakeHsm, name: str) -> list[tuple[int, ...]]:
    """What *name* was called with, each time."""
    return [call.argument for call in hsm.calls if call.name == name]


@attrs.define(eq=False)
class Rig:
    """A machine that can be run; ``dispatch`` writes down what comes."""

    hsm: FakeHsm
    vm: AcrnVm
    memory: GuestMemory
    dispatch: Recorder = attrs.field(factory=Recorder)

    def boot(self) -> None:
        """What the main program does before each run."""
        self.vm.set_boot_registers(FLAT)
        self.vm.run(self.dispatch)

    def sequence(self, *without: str) -> list[str]:
        """The calls so far, but for those that come and go with the guest's accesses."""
        return self.hsm.names("ATTACH_IOREQ_CLIENT", "NOTIFY_REQUEST_FINISH", *without)

    def forget(self) -> None:
        """Begin a new sequence."""
        self.hsm.calls.clear()


def make_rig(hsm: FakeHsm, **options: Any) -> Rig:
    """A VM with 4 MiB of RAM at 0 and 2 MiB at 4 GiB; its owner closes it."""
    vm = open_vm(hsm, **options)
    ranges = [MemoryRange(gpa=0, size=4 * MIB), MemoryRange(gpa=1 << 32, size=2 * MIB)]
    memory = GuestMemory.allocate(ranges)
    for region in memory.regions:
        vm.map_memory(region)
    return Rig(hsm, vm, memory)


@contextmanager
def rig(*, acrn_kernel: bool = False, **options: Any) -> Iterator[Rig]:
    """A rig that is closed and looked at afterwards."""
    hsm = FakeHsm(acrn_kernel=acrn_kernel)
    made = make_rig(hsm, **options)
    try:
        yield made
    finally:
        made.vm.close()
        made.memory.close()
    hsm.close()


def last_access(access: Callable[[], object]) -> threading.Thread:
    """A vCPU whose access is its last: it is never answered. Join the thread when the machine is paused."""

    def vcpu() -> None:
        with pytest.raises(VcpuGoneError):
            access()

    thread = threading.Thread(target=vcpu, daemon=True)
    thread.start()
    return thread
