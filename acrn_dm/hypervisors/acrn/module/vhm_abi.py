"""The interface of ACRN 1.x and 2.x, ``/dev/acrn_vhm``, of 2018 to 2020, before it was in Linux.

It is ``hsm`` with other numbers, which say nothing of size and direction, and some other structures (tag v1.0 of
projectacrn/acrn-hypervisor: devicemodel/include/public/vhm_ioctl_defs.h, hypervisor/include/public/acrn_common.h):

* the interface has a version, asked first; vCPUs are created one by one; a VM has a UUID instead of a name
* a client has a number, which a request's word at offset 132 and NOTIFY_REQUEST_FINISH carry
* ``vm_memmap`` has the access rights behind the length, 40 bytes in all; the registers have 8 reserved bytes more
"""

import errno
import struct
import uuid
from collections.abc import Mapping

from acrn_dm.base.errors import HostError
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module.abi import IO_COMPLETION_POLLING, LAPIC_PASSTHROUGH, SECURE_WORLD, Port
from acrn_dm.hypervisors.acrn.module.errors import failed
from acrn_dm.hypervisors.acrn.module.interface import VHM_PATH
from acrn_dm.memory.guest_memory import MemoryRegion

BASE = 0x43 << 24
REQUESTS: Mapping[str, int] = {
    "GET_API_VERSION": BASE | 0x00,
    "CREATE_VM": BASE | 0x10,
    "DESTROY_VM": BASE | 0x11,
    "START_VM": BASE | 0x12,
    "PAUSE_VM": BASE | 0x13,
    "CREATE_VCPU": BASE | 0x14,
    "RESET_VM": BASE | 0x15,
    "SET_VCPU_REGS": BASE | 0x16,
    "INJECT_MSI": BASE | 0x23,
    "VM_INTR_MONITOR": BASE | 0x24,
    "SET_IRQLINE": BASE | 0x25,
    "NOTIFY_REQUEST_FINISH": BASE | 0x31,
    "CREATE_IOREQ_CLIENT": BASE | 0x32,
    "ATTACH_IOREQ_CLIENT": BASE | 0x33,
    "DESTROY_IOREQ_CLIENT": BASE | 0x34,
    "CLEAR_VM_IOREQ": BASE | 0x35,
    "SET_MEMSEG": BASE | 0x41,
    "PM_GET_CPU_STATE": BASE | 0x60,
    "IOEVENTFD": BASE | 0x70,
    "IRQFD": BASE | 0x71,
}

VERSION = (1, 0)
API_VERSION = struct.Struct("<II")  # major, minor
CREATE_VCPU = struct.Struct("<HHI")  # vCPU, physical CPU (unused); aligned to 8 bytes
MEMMAP = struct.Struct("<IIQQQI4x")  # type 0 RAM, address is virtual, gpa, address, length, rights
NOTIFY = struct.Struct("<iI")  # client, vCPU
MORE_REGISTERS = bytes(8)
RIGHTS = 7  # read, write, execute
RT = 1 << 5
DEFAULT_UUID = uuid.UUID("d2795438-25d6-11e8-864e-cb7a18b34643")  # of the original program, when none was given


def guest_flags(options: HypervisorOptions) -> int:
    """Return the flags for CREATE_VM: the real-time bit was another one then, and there was no PMU to pass through."""
    flags = SECURE_WORLD if options.plugin_options.get("enable_trusty") else 0
    if options.plugin_options.get("rtvm"):
        flags |= RT | IO_COMPLETION_POLLING | LAPIC_PASSTHROUGH
    return flags


class VhmAbi:
    """``/dev/acrn_vhm``."""

    name = "vhm"
    path = VHM_PATH
    requests = REQUESTS

    def create(self, port: Port, options: HypervisorOptions, page: int, cpu_affinity: int) -> tuple[int, int]:
        """Check the version, create the VM and its vCPUs."""
        answer = bytearray(API_VERSION.size)
        port.call("GET_API_VERSION", answer)
        version = API_VERSION.unpack(answer)
        if version != VERSION:
            raise HostError(
                f"GET_API_VERSION: {version[0]}.{version[1]}, not {VERSION[0]}.{VERSION[1]}", hint="try hsm"
            )
        argument = _hsm.vm_creation(DEFAULT_UUID.bytes, guest_flags(options), page, 0)
        port.call("CREATE_VM", argument)
        vmid, _ = _hsm.created_vm(argument)
        for vcpu in range(options.vcpus):
            try:
                port.call("CREATE_VCPU", bytearray(CREATE_VCPU.pack(vcpu, 0, 0)))
            except HostError:
                port.attempt("PAUSE_VM")
                port.attempt("DESTROY_VM")
                raise
        return vmid, options.vcpus

    def ram(self, region: MemoryRegion) -> bytearray:
        """``vm_memmap``."""
        return bytearray(MEMMAP.pack(0, 1, region.gpa, region.hva, region.size, RIGHTS))

    def vcpu_regs(self, registers: BootRegisters) -> bytearray:
        """``acrn_set_vcpu_regs``."""
        return _hsm.vcpu_regs(0, registers) + MORE_REGISTERS

    def notify(self, vmid: int, client: int, vcpu: int) -> bytearray:
        """``ioreq_notify``."""
        return bytearray(NOTIFY.pack(client, vcpu))

    def owner(self, client: int) -> int:
        """The word is the number of the client that a request was given to."""
        if client <= 0:
            raise failed("CREATE_IOREQ_CLIENT", errno.EINVAL)
        return client


VHM = VhmAbi()
