"""The one contract every hypervisor keeps: ``sim``, ``kvm`` and ``hsm`` pass the same test suite of it.

A hypervisor object is one virtual machine. Life cycle: open -> map_memory, set_boot_registers -> run -> (pause,
resume)* -> reset (back to before ``map_memory``'s first use: vCPUs and interrupt controllers as after power-on,
memory stays mapped, eventfd bindings gone) -> set_boot_registers, run ... -> stop -> close. ``stop`` and ``close``
are idempotent.
"""

import enum
from typing import Protocol, runtime_checkable

from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage
from acrn_dm.contract.processors import ProcessorPower
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.memory.guest_memory import MemoryRegion


class VmEvent(enum.Enum):
    """The reason why a vCPU stopped for good."""

    TRIPLE_FAULT = "triple fault"
    HALTED = "halted with interrupts off"
    INTERNAL_ERROR = "hypervisor error"


class Dispatch(Protocol):
    """The receiver of a vCPU's accesses. Called on vCPU threads, several at a time."""

    def pio_read(self, port: int, size: int) -> int:
        """IN: *size* is 1, 2 or 4."""

    def pio_write(self, port: int, size: int, value: int) -> None:
        """OUT: *size* is 1, 2 or 4."""

    def mmio_read(self, gpa: int, size: int) -> int:
        """Load of *size* bytes (1, 2, 4 or 8; others are split before they come here)."""

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Store of *size* bytes (1, 2, 4 or 8)."""

    def pci_config_read(self, function: int, register: int, size: int) -> int:
        """Configuration read that the hypervisor has decoded; *function* is bus << 8 | device << 3 | function."""

    def pci_config_write(self, function: int, register: int, size: int, value: int) -> None:
        """Configuration write that the hypervisor has decoded."""

    def vcpu_must_wait(self) -> bool:
        """Whether the vCPU whose access was just answered may not run on: it asked for a reset in place, or for S3.

        Asked by hypervisors that can hold one vCPU back; the others stop it a little later, with ``pause``.
        """

    def vm_event(self, event: VmEvent, detail: str) -> None:
        """A vCPU can't go on."""


class Hypervisor(Protocol):
    """One virtual machine; see the module."""

    @property
    def name(self) -> str:
        """The virtual machine's name."""

    @property
    def vcpus(self) -> int:
        """How many vCPUs there are."""

    @property
    def ioapic_pins(self) -> int:
        """How many GSIs INTx routing may use: 24 on KVM, 48 on ACRN."""

    @property
    def pins_memory(self) -> bool:
        """Whether it keeps guest pages for good: they may be cleared, but not given back to the host."""

    @property
    def fault_powers_off(self) -> bool:
        """Whether a triple fault comes as a write of S5 to PM1 control: see ``triple_fault``."""

    @property
    def apic_ids(self) -> tuple[int, ...]:
        """Local APIC id of each vCPU, the boot processor first."""

    def map_memory(self, region: MemoryRegion) -> None:
        """Make *region* guest RAM. Raises HostError."""

    def set_boot_registers(self, registers: BootRegisters) -> None:
        """Give vCPU 0 its entry state; the others wait for INIT and SIPI."""

    def run(self, dispatch: Dispatch) -> None:
        """Start the vCPUs; returns at once."""

    def pause(self) -> None:
        """Stop all vCPUs at an instruction boundary; when this returns none is in ``dispatch``."""

    def resume(self) -> None:
        """Let them go on. Raises HostError where there is no way to (ACRN)."""

    def reset(self, *, full: bool = False) -> None:
        """Back to power-on; vCPUs are stopped, bindings gone, memory mapped.

        *full* is a power cycle; hypervisors that know no other make no difference.
        """

    def processor_power(self) -> tuple[ProcessorPower, ...]:
        """Performance and idle states of each vCPU, for ACPI; empty where the guest has none to choose."""

    def stop(self) -> None:
        """Stop for good."""

    def close(self) -> None:
        """Give everything back."""

    def inject_msi(self, message: MsiMessage) -> None:
        """Deliver *message* once. Raises HostError."""

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        """Set the logical level of *gsi*."""

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register / unregister a kick. Raises HostError (EEXIST for a duplicate, ENOENT for an unknown one)."""

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register / unregister a call. A signal pending on the fd at assignment is delivered. Raises HostError."""


@runtime_checkable
class ReplacesMemory(Protocol):
    """A hypervisor that takes memory, and gives it back, while the guest runs: a file can stand in a BAR then."""

    def map_memory(self, region: MemoryRegion) -> None:
        """As ``Hypervisor.map_memory``, at any time."""

    def unmap_memory(self, region: MemoryRegion) -> None:
        """*region* is no memory of the guest's any more: accesses there come to ``Dispatch``. Nothing happens for what
        is not mapped. Raises HostError.
        """
