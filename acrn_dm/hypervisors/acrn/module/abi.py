"""The two interfaces of ACRN's kernel module behind one face: requests by name, and structures as bytes.

``HSM`` is today's, Linux's ``linux/acrn.h``. ``vhm.VHM`` is that of 2018 to 2020. Everything else in these modules is
the same for both.
"""

import errno
from collections.abc import Callable, Mapping
from typing import Protocol

from acrn_dm.base.records import define
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module.errors import failed
from acrn_dm.hypervisors.acrn.module.interface import HSM_PATH
from acrn_dm.memory.guest_memory import MemoryRegion

MAX_NAME = 15  # bytes, with a NUL behind them

# Flags of a virtual machine (ACRN hypervisor/include/public/acrn_common.h, GUEST_FLAG_*).
SECURE_WORLD = 1 << 0
LAPIC_PASSTHROUGH = 1 << 1
IO_COMPLETION_POLLING = 1 << 2
RT = 1 << 4
PMU_PASSTHROUGH = 1 << 11

# Operations of SET_IRQLINE, in the upper half of its 64 bits; the GSI is in the lower.
GSI_SET_HIGH, GSI_SET_LOW = 0, 1


class Device(Protocol):
    """The open device file; ``_hsm.Device``, or a stand-in of a test."""

    @property
    def fd(self) -> int:
        """-1 when closed."""

    def close(self) -> None:
        """Idempotent."""

    def ioctl(self, request: int, argument: int | bytearray, may_sleep: bool = True) -> int:
        """Return the result, or minus errno."""


class Abi(Protocol):
    """One version of the interface."""

    name: str
    path: str
    requests: Mapping[str, int]

    def create(self, port: "Port", options: HypervisorOptions, page: int, cpu_affinity: int) -> tuple[int, int]:
        """Create the virtual machine, one attempt; return its id and how many vCPUs it has. Raises HostError."""

    def ram(self, region: MemoryRegion) -> bytearray:
        """Argument of SET_MEMSEG."""

    def vcpu_regs(self, registers: BootRegisters) -> bytearray:
        """Argument of SET_VCPU_REGS, for vCPU 0."""

    def notify(self, vmid: int, client: int, vcpu: int) -> bytearray:
        """Argument of NOTIFY_REQUEST_FINISH."""

    def owner(self, client: int) -> int:
        """What a slot's word at offset 132 holds when it is *client*'s to serve."""


@define(eq=False)
class Port:
    """The module's calls by name, on one open device file."""

    abi: Abi
    device: Device

    @classmethod
    def open(cls, abi: Abi, open_device: Callable[[str], Device]) -> "Port":
        """Open the device file. Raises HostError."""
        return cls(abi, open_device(abi.path))

    @property
    def is_open(self) -> bool:
        """Whether there is a device file to call."""
        return self.device.fd >= 0

    def call(self, name: str, argument: int | bytearray = 0, *, may_sleep: bool = True) -> int:
        """Make the call and return its result. Raises HostError."""
        result = self.attempt(name, argument, may_sleep=may_sleep)
        if result < 0:
            raise failed(name, -result)
        return result

    def attempt(self, name: str, argument: int | bytearray = 0, *, may_sleep: bool = True) -> int:
        """Make the call and return its result, or minus errno."""
        request = self.abi.requests.get(name)
        if request is None:
            return -errno.ENOTTY
        return self.device.ioctl(request, argument, may_sleep)

    def close(self) -> None:
        """Close the device file. Idempotent."""
        self.device.close()


def guest_flags(options: HypervisorOptions) -> int:
    """Return the flags for CREATE_VM. A real-time guest implies local APICs passed through, as in the original."""
    flags = SECURE_WORLD if options.plugin_options.get("enable_trusty") else 0
    if options.plugin_options.get("rtvm"):
        flags |= RT | IO_COMPLETION_POLLING | LAPIC_PASSTHROUGH | PMU_PASSTHROUGH
    return flags


class HsmAbi:
    """``/dev/acrn_hsm``."""

    name = "hsm"
    path = HSM_PATH
    requests: Mapping[str, int] = _hsm.REQUESTS

    def create(self, port: Port, options: HypervisorOptions, page: int, cpu_affinity: int) -> tuple[int, int]:
        """The hypervisor makes as many vCPUs as there are CPUs in *cpu_affinity*."""
        identity = options.name.encode()[:MAX_NAME]
        argument = _hsm.vm_creation(identity, guest_flags(options), page, cpu_affinity)
        port.call("CREATE_VM", argument)
        return _hsm.created_vm(argument)

    def ram(self, region: MemoryRegion) -> bytearray:
        """``acrn_vm_memmap``."""
        return _hsm.ram(region.gpa, region.hva, region.size)

    def vcpu_regs(self, registers: BootRegisters) -> bytearray:
        """``acrn_vcpu_regs``."""
        return _hsm.vcpu_regs(0, registers)

    def notify(self, vmid: int, client: int, vcpu: int) -> bytearray:
        """``acrn_ioreq_notify``."""
        return _hsm.ioreq_notify(vmid, vcpu)

    def owner(self, client: int) -> int:
        """The word is ``kernel_handled``; there is one client of user space."""
        return 0


HSM = HsmAbi()
