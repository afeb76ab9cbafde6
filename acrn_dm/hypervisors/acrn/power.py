"""Power states of a virtual machine's CPUs, performance and idle, as the hypervisor tells them.

Asked by PM_GET_CPU_STATE with a command of VM id (bits 31:24), vCPU (23:16), number of the state (15:8; idle states
count from 1) and what is wanted (7:0). A refusal, which is EPERM, means that there is nothing.
"""

import errno
import logging
import struct

from acrn_dm.contract.processors import CState, GenericAddress, ProcessorPower, PState
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module.abi import Port
from acrn_dm.hypervisors.acrn.module.errors import failed

log = logging.getLogger(__name__)

ANSWER = max(_hsm.PX_DATA_SIZE, _hsm.CX_DATA_SIZE)


def processor_power(port: Port, vmid: int, vcpus: int) -> tuple[ProcessorPower, ...]:
    """Return what each vCPU has; empty when none has anything."""
    found = tuple(_one(port, vmid, vcpu) for vcpu in range(vcpus))
    return found if any(power != ProcessorPower() for power in found) else ()


def _one(port: Port, vmid: int, vcpu: int) -> ProcessorPower:
    px_count = _count(port, vmid, vcpu, _hsm.GET_PX_COUNT)
    cx_count = _count(port, vmid, vcpu, _hsm.GET_CX_COUNT)
    pstates = tuple(_pstate(port, vmid, vcpu, i) for i in range(px_count or 0))
    cstates = tuple(_cstate(port, vmid, vcpu, i) for i in range(1, (cx_count or 0) + 1))
    return ProcessorPower(  # a table with a gap in it is none
        pstates=tuple(p for p in pstates if p) if all(pstates) else (),
        cstates=tuple(c for c in cstates if c) if all(cstates) else (),
        continuous=px_count == 0,
    )


def _count(port: Port, vmid: int, vcpu: int, what: int) -> int | None:
    """How many states there are; only the lowest byte is the hypervisor's."""
    answer = _ask(port, vmid, vcpu, 0, what)
    return None if answer is None else answer[0]


def _pstate(port: Port, vmid: int, vcpu: int, number: int) -> PState | None:
    answer = _ask(port, vmid, vcpu, number, _hsm.GET_PX_DATA)
    if answer is None:
        return None
    frequency, power, transition, bus_master, control, status = _hsm.pstate(answer)
    return PState(
        frequency_mhz=frequency,
        power_mw=power,
        transition_us=transition,
        bus_master_us=bus_master,
        control=control,
        status=status,
    )


def _cstate(port: Port, vmid: int, vcpu: int, number: int) -> CState | None:
    answer = _ask(port, vmid, vcpu, number, _hsm.GET_CX_DATA)
    if answer is None:
        return None
    (space, width, offset, access, address), kind, latency, power = _hsm.cstate(answer)
    register = GenericAddress(space=space, bit_width=width, bit_offset=offset, access_size=access, address=address)
    return CState(register=register, type=kind, latency_us=latency, power_mw=power)


def _ask(port: Port, vmid: int, vcpu: int, number: int, what: int) -> bytearray | None:
    answer = bytearray(ANSWER)
    command = (vmid & 0xFF) << 24 | (vcpu & 0xFF) << 16 | (number & 0xFF) << 8 | what
    struct.pack_into("<Q", answer, 0, command)
    result = port.attempt("PM_GET_CPU_STATE", answer)
    if result >= 0:
        return answer
    if result != -errno.EPERM:
        log.warning("the guest gets no power states of vCPU %d: %s", vcpu, failed("PM_GET_CPU_STATE", -result))
    return None
