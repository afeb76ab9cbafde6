"""A client of the HSM interface for the rig's own tests: each ioctl by its number, each structure by its bytes.

Written from linux/acrn.h and on purpose without acrn_dm: the rig is what acrn_dm is judged by.
"""

import ctypes
import mmap
import os
import struct
from pathlib import Path

import attrs

TYPE = 0xA2


def _io(number: int) -> int:
    return TYPE << 8 | number


def _iow(number: int, size: int) -> int:
    return 1 << 30 | size << 16 | TYPE << 8 | number


def _iowr(number: int, size: int) -> int:
    return 3 << 30 | size << 16 | TYPE << 8 | number


CREATE_VM = _iowr(0x10, 48)
DESTROY_VM, START_VM, PAUSE_VM, RESET_VM = _io(0x11), _io(0x12), _io(0x13), _io(0x15)
SET_VCPU_REGS = _iow(0x16, 296)
INJECT_MSI = _iow(0x23, 16)
VM_INTR_MONITOR = _iow(0x24, 8)
SET_IRQLINE = _iow(0x25, 8)
NOTIFY_REQUEST_FINISH = _iow(0x31, 8)
CREATE_IOREQ_CLIENT, ATTACH_IOREQ_CLIENT, DESTROY_IOREQ_CLIENT, CLEAR_VM_IOREQ = map(_io, (0x32, 0x33, 0x34, 0x35))
SET_MEMSEG, UNSET_MEMSEG = _iow(0x41, 32), _iow(0x42, 32)
PM_GET_CPU_STATE = _iowr(0x60, 8)
IOEVENTFD, IRQFD = _iow(0x70, 32), _iow(0x71, 24)
SETUP_ASYNCIO = _iow(0x90, 8)

SLOT = 256
PIO, MMIO, PCICFG = 0, 1, 2
PENDING, COMPLETE, PROCESSING, FREE = 0, 1, 2, 3
LINE_HIGH, LINE_LOW, LINE_RISING, LINE_FALLING = 0, 1, 2, 3
PAGE = 4096


@attrs.frozen
class Request:
    """One slot, as the client reads it."""

    vcpu: int
    kind: int
    write: bool
    address: int  # of a configuration access: bus << 24 | device << 19 | function << 16 | register
    size: int
    value: int


class Client:
    """One descriptor of the node. Every call returns its result, or raises OSError."""

    def __init__(self, library: Path | None, vcpus: int = 1, node: bytes = b"/dev/acrn_hsm") -> None:
        self.lib = ctypes.CDLL(library and str(library), use_errno=True)  # None: what is preloaded
        self.lib.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
        self.vcpus = vcpus
        self.page = mmap.mmap(-1, PAGE)
        self.memory: list[mmap.mmap] = []
        self.fd = self._result(self.lib.open(node, os.O_RDWR | os.O_CLOEXEC))

    def call(self, request: int, argument: bytes | bytearray | int = 0) -> int:
        """The ioctl; a bytearray is given by address and changed, an int by value."""
        if isinstance(argument, int):
            return self._result(self.lib.ioctl(self.fd, request, argument))
        buffer = (ctypes.c_char * len(argument)).from_buffer_copy(argument)
        result = self._result(self.lib.ioctl(self.fd, request, ctypes.addressof(buffer)))
        if isinstance(argument, bytearray):
            argument[:] = buffer.raw
        return result

    def create(self, *, name: bytes = b"rig", flags: int = 0, affinity: int | None = None, reserved: int = 0) -> int:
        """CREATE_VM; returns the number of vCPUs."""
        mask = (1 << self.vcpus) - 1 if affinity is None else affinity
        page = address_of(self.page)
        args = bytearray(struct.pack("<4H16s3Q", 0, reserved, 0, 0, name, flags, page, mask))
        self.call(CREATE_VM, args)
        return int(struct.unpack_from("<H", args, 4)[0])

    def set_memory(self, size: int, gpa: int = 0) -> mmap.mmap:
        """Give the guest fresh memory."""
        memory = mmap.mmap(-1, size)
        self.memory.append(memory)
        self.call(SET_MEMSEG, memseg(0, gpa, address_of(memory), size))
        return memory

    def slot(self, vcpu: int) -> Request:
        """What vCPU asks."""
        base = vcpu * SLOT
        kind = struct.unpack_from("<I", self.page, base)[0]
        direction, _, address, size, value = struct.unpack_from("<IIQQQ", self.page, base + 64)
        if kind != MMIO:
            value &= 0xFFFF_FFFF
        if kind == PCICFG:
            bus, device, function, register = struct.unpack_from("<4I", self.page, base + 92)
            address = bus << 24 | device << 19 | function << 16 | register
        return Request(vcpu, kind, bool(direction), address, size, value)

    def state(self, vcpu: int) -> tuple[int, int]:
        """(processed, kernel_handled)."""
        kernel_handled, processed = struct.unpack_from("<II", self.page, vcpu * SLOT + 132)
        return processed, kernel_handled

    def attach(self) -> list[Request]:
        """ATTACH_IOREQ_CLIENT and a look at the slots."""
        self.call(ATTACH_IOREQ_CLIENT)
        return [self.slot(i) for i in range(self.vcpus) if self.state(i) == (PROCESSING, 0)]

    def answer(self, request: Request, value: int | None = None) -> None:
        """Write the value of a read, notify."""
        if value is not None:
            form = "<Q" if request.kind == MMIO else "<I"
            struct.pack_into(form, self.page, request.vcpu * SLOT + 88, value)
        self.notify(request.vcpu)

    def notify(self, vcpu: int, *, reserved: int = 0, vmid: int = 1) -> None:
        """NOTIFY_REQUEST_FINISH."""
        self.call(NOTIFY_REQUEST_FINISH, struct.pack("<HHI", vmid, reserved, vcpu))

    def close(self) -> None:
        """Close the descriptor."""
        self._result(self.lib.close(self.fd))

    def end(self) -> None:
        """The orderly end of a started VM."""
        self.call(PAUSE_VM)
        self.call(DESTROY_IOREQ_CLIENT)
        self.call(DESTROY_VM)
        self.close()

    @staticmethod
    def _result(result: int) -> int:
        if result < 0:
            err = ctypes.get_errno()
            raise OSError(err, os.strerror(err))
        return result


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping is."""
    anchor = ctypes.c_char.from_buffer(memory)
    try:
        return ctypes.addressof(anchor)
    finally:
        del anchor


def memseg(kind: int, gpa: int, hva: int, size: int, attributes: int = 7) -> bytes:
    """struct acrn_vm_memmap."""
    return struct.pack("<IIQQQ", kind, attributes, gpa, hva, size)


def irq_line(gsi: int, operation: int) -> int:
    """The by-value argument of SET_IRQLINE."""
    return gsi | operation << 32


def ioeventfd(fd: int, addr: int, length: int, *, flags: int = 0, data: int = 0, reserved: int = 0) -> bytes:
    """struct acrn_ioeventfd; flags 1: port, 2: data match, 4: take away, 8: asynchronous."""
    return struct.pack("<iIQIIQ", fd, flags, addr, length, reserved, data)


def irqfd(fd: int, addr: int, data: int, *, flags: int = 0) -> bytes:
    """struct acrn_irqfd; flags 1: take away."""
    return struct.pack("<iIQQ", fd, flags, addr, data)


def vcpu_regs(
    *,
    rip: int,
    rsp: int = 0,
    cs: tuple[int, int, int, int],
    data_selector: int = 0,
    cr0: int = 0x30,
    cr3: int = 0,
    cr4: int = 0,
    efer: int = 0,
    gdt: tuple[int, int] = (0, 0),
    vcpu: int = 0,
    reserved: int = 0,
) -> bytes:
    """struct acrn_vcpu_regs; *cs* is selector, base, limit, attributes; *gdt* is base, limit."""
    selector, base, limit, attributes = cs
    gprs = [0] * 16
    gprs[4] = rsp
    return b"".join(
        (
            struct.pack("<HHHH", vcpu, reserved, 0, 0),
            struct.pack("<16Q", *gprs),
            struct.pack("<HQ3H", gdt[1], gdt[0], 0, 0, 0),
            struct.pack("<HQ3H", 0xFFFF, 0, 0, 0, 0),
            struct.pack("<7Q4Q", rip, base, cr0, cr4, cr3, efer, 0, 0, 0, 0, 0),
            struct.pack("<2I3I", attributes, limit, 0, 0, 0),
            struct.pack("<8H", selector, *[data_selector] * 5, 0, 0),
            bytes(4),
        )
    )
