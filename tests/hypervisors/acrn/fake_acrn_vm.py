"""The hypervisor's side of a virtual machine on the stand-in of ACRN's kernel module; see ``fake_hsm``."""

import ctypes
import os
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from tests.hypervisors.acrn.fake_hsm import FakeHsm

RING = struct.Struct("<QIIIIIIII")
PENDING, COMPLETE, PROCESSING, FREE = range(4)
PIO, MMIO, PCICFG = range(3)
VALUE = {PIO: "<I", MMIO: "<Q"}
SLOT, REQUEST, HANDLED, STATE = 256, 64, 132, 136
PATIENCE_S = 20.0


class VcpuGoneError(Exception):
    """The virtual machine was paused, reset or destroyed: this vCPU's program is over."""


@attrs.frozen
class Access:
    """One access of a vCPU; a write has a *value*."""

    kind: int
    address: int
    size: int
    value: int | None = None


@attrs.define(eq=False)
class Kick:
    """An ioeventfd; *fd* is our own duplicate, *theirs* the number it was registered by."""

    fd: int
    theirs: int
    flags: int
    addr: int
    length: int
    data: int | None

    @property
    def pio(self) -> bool:
        return bool(self.flags & 1)


@attrs.define(eq=False)
class FakeVm:
    """The hypervisor's side of one virtual machine, and its guest."""

    hsm: "FakeHsm"
    vmid: int
    vcpus: int
    creation: tuple[Any, ...]
    slots: memoryview
    state: str = "created"
    epoch: int = 0  # a vCPU's program ends when it changes
    memory: list[tuple[int, int, int]] = attrs.field(factory=list)  # gpa, hva, length
    registers: tuple[Any, ...] | None = None
    client: bool = False
    destroying: bool = False
    waiting: set[int] = attrs.field(factory=set)  # vCPUs whose requests are the client's
    spurious: int = 0  # returns of ATTACH without a reason, still to come
    config_address: int = 0
    kicks: list[Kick] = attrs.field(factory=list)
    calls: dict[int, tuple[int, tuple[int, int], int]] = attrs.field(factory=dict)  # theirs -> own fd, message, inode
    msis: list[tuple[int, int]] = attrs.field(factory=list)
    pending_msis: list[tuple[int, int]] = attrs.field(factory=list)
    lines: dict[int, int] = attrs.field(factory=dict)  # what SET_IRQLINE said last
    events: memoryview | None = None
    asyncio: bool = False
    answered: Counter[int] = attrs.field(factory=Counter)  # requests finished, by vCPU

    # The guest's processors

    def pio_read(self, port: int, size: int, vcpu: int = 0) -> int:
        return self._access(vcpu, Access(PIO, port, size)) & (1 << 8 * size) - 1

    def pio_write(self, port: int, size: int, value: int, vcpu: int = 0) -> None:
        self._access(vcpu, Access(PIO, port, size, value))

    def mmio_read(self, gpa: int, size: int, vcpu: int = 0) -> int:
        ram = self._ram(gpa, size)
        if ram is not None:
            return int.from_bytes(ctypes.string_at(ram, size), "little")
        return self._access(vcpu, Access(MMIO, gpa, size)) & (1 << 8 * size) - 1

    def mmio_write(self, gpa: int, size: int, value: int, vcpu: int = 0) -> None:
        ram = self._ram(gpa, size)
        if ram is not None:
            ctypes.memmove(ram, value.to_bytes(size, "little"), size)
        else:
            self._access(vcpu, Access(MMIO, gpa, size, value))

    def triple_fault(self, vcpu: int = 0) -> None:
        """The hypervisor tells by an event, where it can, and then asks the device model to power off."""
        if self.events is not None:
            self._put_event(2)
        self.pio_write(0x404, 2, 0x3400, vcpu)

    def asserted(self, gsi: int) -> bool:
        """As an IOAPIC entry sees it whose polarity is the bus's: PCI's pins are active low."""
        return self.lines.get(gsi, 0) == (1 if gsi >= 16 else 0) and gsi in self.lines

    def take_msis(self) -> list[tuple[int, int]]:
        with self.hsm.changed:
            taken, self.pending_msis = self.pending_msis, []
            return taken

    def _ram(self, gpa: int, size: int) -> int | None:
        for base, hva, length in self.memory:
            if base <= gpa and gpa + size <= base + length:
                return hva + gpa - base
        return None

    def _access(self, vcpu: int, access: Access) -> int:
        at = SLOT * vcpu
        with self.hsm.changed:
            self._running()
            epoch = self.epoch
            if self._word(at + STATE) not in (FREE, COMPLETE):
                self.hsm.violations.append(f"slot {vcpu} is in state {self._word(at + STATE)} before a request")
            self._post(at, access)
            self._dispatch(vcpu, access)
            self.hsm.changed.notify_all()
            done = self.hsm.changed.wait_for(
                lambda: self.epoch != epoch or self.state != "running" or self._word(at + STATE) == COMPLETE,
                PATIENCE_S,
            )
            assert done, f"vCPU {vcpu} was not answered: {self.hsm.names()[-20:]}"
            if self.epoch != epoch or self.state != "running":
                raise VcpuGoneError
            self._set(at + STATE, FREE)
            return int(struct.unpack_from(VALUE[access.kind], self.slots, at + REQUEST + 24)[0])

    def _post(self, at: int, access: Access) -> None:
        """What the hypervisor does: fill the slot in, then its state."""
        struct.pack_into("<II56x", self.slots, at, access.kind, 0)
        write = access.value is not None
        struct.pack_into("<IIQQ", self.slots, at + REQUEST, write, 0, access.address, access.size)
        struct.pack_into(VALUE[access.kind], self.slots, at + REQUEST + 24, access.value or 0)
        self._set(at + STATE, PENDING)

    def _running(self) -> None:
        if self.state != "running":
            raise VcpuGoneError

    # The module's dispatcher

    def _dispatch(self, vcpu: int, access: Access) -> None:
        at = SLOT * vcpu
        pio = access.kind == PIO
        if pio and access.address == 0xCF8:
            if access.value is not None:
                self.config_address = access.value
            self._answer(vcpu, access, self.config_address)
        elif pio and 0xCFC <= access.address < 0xD00 and not self.config_address & 1 << 31:
            self._answer(vcpu, access, 0xFFFF_FFFF)
        elif self._claimed(access):
            self._set(at + HANDLED, 1)
            self._set(at + STATE, PROCESSING)
            if access.value is not None:
                self._kick(access)
            self._answer(vcpu, access, 0)
        else:
            if pio and 0xCFC <= access.address < 0xD00:
                self._decode_config(at, access.address - 0xCFC)
            self._set(at + HANDLED, 0)
            self._set(at + STATE, PROCESSING)
            self.waiting.add(vcpu)

    def _decode_config(self, at: int, offset: int) -> None:
        latch = self.config_address
        self._set(at, PCICFG)
        register = (latch & 0xFC) + (latch >> 16 & 0xF00) + offset
        place = (latch >> 16 & 0xFF, latch >> 11 & 0x1F, latch >> 8 & 7, register)
        struct.pack_into("<4I", self.slots, at + REQUEST + 28, *place)

    def _claimed(self, access: Access) -> bool:
        """The module looks at the range only, not at length, value or direction."""
        last = access.address + access.size - 1
        return any(
            k.pio == (access.kind == PIO) and k.addr <= access.address and last <= k.addr + k.length - 1
            for k in self.kicks
        )

    def _kick(self, access: Access) -> None:
        for k in self.kicks:
            same = k.pio == (access.kind == PIO) and k.addr == access.address
            if same and k.length >= access.size and k.data in (None, access.value):
                os.eventfd_write(k.fd, 1)
                return

    def _answer(self, vcpu: int, access: Access, value: int) -> None:
        """The module finishes the request by itself."""
        if access.value is None:
            struct.pack_into(VALUE[access.kind], self.slots, SLOT * vcpu + REQUEST + 24, value)
        self._complete(vcpu)

    def _complete(self, vcpu: int) -> None:
        self._set(SLOT * vcpu + STATE, COMPLETE)
        self.answered[vcpu] += 1
        self.hsm.changed.notify_all()

    def _word(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.slots, at)[0])

    def _set(self, at: int, value: int) -> None:
        struct.pack_into("<I", self.slots, at, value)

    def _put_event(self, kind: int) -> None:
        assert self.events is not None
        with self.hsm.changed:
            magic, count, size, head, tail, _, _, _, total = RING.unpack_from(self.events)
            assert (magic, size, total) == (0x5AA57AA71AA13AA3, 32, count * 32)
            assert (tail + size) % total != head, "full"
            struct.pack_into("<I28x", self.events, 64 + tail, kind)
            struct.pack_into("<I", self.events, 20, (tail + size) % total)
