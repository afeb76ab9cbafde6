# cython: auto_pickle=False, autotestdict=False
"""A vCPU's exits: an access of the guest, passed on, or what ends the vCPU, in words."""

from acrn_dm.hypervisors.kvm cimport _linux_kvm as kvm_h
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef int port_access(kvm_h.kvm_run *run, pio_read, pio_write) except -1:
    """One IN or OUT, or what a string instruction does in one go: *count* elements, at most a page of them."""
    cdef uint8_t *data = <uint8_t *>run + run.io.data_offset
    cdef uint8_t size = run.io.size
    cdef uint16_t port = run.io.port
    cdef bint out = run.io.direction == kvm_h.KVM_EXIT_IO_OUT
    for _ in range(run.io.count):
        if out:
            pio_write(port, size, _load(data, size))
        else:
            _store(data, size, pio_read(port, size))
        data += size
    return 0


cdef int memory_access(kvm_h.kvm_run *run, mmio_read, mmio_write) except -1:
    """One load or store; sizes that are no power of two are split into naturally aligned parts, upwards."""
    cdef uint64_t gpa = run.mmio.phys_addr
    cdef uint32_t length = run.mmio.len
    cdef bint store = run.mmio.is_write
    cdef uint32_t done = 0
    cdef uint32_t size
    while done < length:
        size = _part(gpa + done, length - done)
        if store:
            mmio_write(gpa + done, size, _load(run.mmio.data + done, size))
        else:
            _store(run.mmio.data + done, size, mmio_read(gpa + done, size))
        done += size
    return 0


cdef tuple ending(kvm_h.kvm_run *run, str place):
    """Why the vCPU can't go on: (name of a ``VmEvent``, detail). *place* is where it stands, in words."""
    cdef uint32_t reason = run.exit_reason
    if reason == kvm_h.KVM_EXIT_SHUTDOWN:
        return "TRIPLE_FAULT", place
    if reason == kvm_h.KVM_EXIT_HLT:
        return "HALTED", place
    if reason == kvm_h.KVM_EXIT_INTERNAL_ERROR:
        return "INTERNAL_ERROR", _internal_error(run, place)
    if reason == kvm_h.KVM_EXIT_FAIL_ENTRY:
        code = run.fail_entry.hardware_entry_failure_reason
        return "INTERNAL_ERROR", f"the processor refused to enter the guest, reason {code:#x}, {place}"
    if reason == kvm_h.KVM_EXIT_SYSTEM_EVENT:
        return "INTERNAL_ERROR", f"system event {run.system_event.type}, {place}"
    return "INTERNAL_ERROR", f"unexpected KVM exit {reason}, {place}"


cdef str _internal_error(kvm_h.kvm_run *run, str place):
    cdef uint32_t count = min(run.internal.ndata, 16)
    data = " ".join(f"{run.internal.data[i]:#x}" for i in range(count))
    if run.internal.suberror == kvm_h.KVM_INTERNAL_ERROR_EMULATION:
        return f"KVM can't emulate the instruction ({data}), {place}"
    return f"KVM internal error {run.internal.suberror} ({data}), {place}"


cdef uint32_t _part(uint64_t gpa, uint32_t left) noexcept nogil:
    """Size of the next access of a split one: all of it if it is a power of two, else what alignment allows."""
    cdef uint32_t size = 8
    if left in (1, 2, 4, 8):
        return left
    while size > left or gpa & (size - 1):
        size >>= 1
    return size


cdef uint64_t _load(const uint8_t *data, uint32_t size) noexcept nogil:
    cdef uint64_t value = 0
    memcpy(&value, data, size)  # x86 is little-endian, as guest registers are
    return value


cdef int _store(uint8_t *data, uint32_t size, value) except -1:
    cdef uint64_t bits = value & 0xFFFF_FFFF_FFFF_FFFF  # a device may answer with more bits than it was asked for
    memcpy(data, &bits, size)
    return 0
