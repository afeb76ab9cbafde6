"""ACRN's kernel module and hypervisor in this process: as strict as the real ones, and able to fail on demand.

Written from the kernel's and the hypervisor's sources with layouts and numbers of its own, so that it is an oracle for
the encoders as well. The guest's processors are threads of the tests, which call ``pio_read`` and so on.

What the real ones would answer with an errno is answered with it. What they would bear, but no right program does, goes
to ``violations``, which every test's end looks at: a request notified twice or unasked, a VM left behind.
"""

import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import Callable
from typing import Any

import attrs

from acrn_dm.hypervisors.acrn.module.errors import failed
from tests.hypervisors.acrn.fake_abi import (
    CREATION,
    IOEVENTFD,
    IRQFD,
    MEMMAP,
    MSI,
    NOTIFY,
    NUMBERS,
    VCPU_REGS,
    Call,
    decode,
)
from tests.hypervisors.acrn.fake_acrn_vm import COMPLETE, FREE, RING, SLOT, STATE, FakeVm, Kick

PAGE = 4096

ASYNCHRONOUS_KICKS = 64  # ACRN's hypervisor, ACRN_ASYNCIO_MAX


@attrs.define(eq=False)
class FakeDevice:
    """One open file of the module."""

    hsm: "FakeHsm"
    fd: int
    vm: FakeVm | None = None

    def close(self) -> None:
        if self.fd < 0:
            return
        self.fd = -1
        with self.hsm.changed:
            self.hsm.devices.remove(self)
            self.hsm.log("close")
            if self.vm is not None:
                self.hsm.destroyed(self.vm, "close")
                self.vm = None

    def ioctl(self, request: int, argument: int | bytearray, may_sleep: bool = True) -> int:
        return self.hsm.ioctl(self, request, argument)


class FakeHsm:
    """The module. *acrn_kernel*: it has what only ACRN's own kernel has."""

    make_vm: type[FakeVm] = FakeVm
    real_time = 1 << 4  # flag of CREATE_VM

    def __init__(self, *, acrn_kernel: bool = False) -> None:
        self.acrn_kernel = acrn_kernel
        self.changed = threading.Condition(threading.RLock())
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.devices: list[FakeDevice] = []
        self.live: list[FakeVm] = []
        self.states: dict[tuple[int, int], dict[int, bytes]] = {}  # power states: (vCPU, what) -> number -> answer
        self.slept: list[float] = []
        self.vcpus: int | None = None  # what CREATE_VM says, if not what was asked for
        self.monitor: Callable[[memoryview], int] | None = None  # answers VM_INTR_MONITOR
        self._faults: dict[str, list[tuple[int, int]]] = {}
        self._next_fd = 1000
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._hooks: dict[int, tuple[FakeVm, tuple[int, int]]] = {}
        self._thread = threading.Thread(target=self._watch_calls, daemon=True)
        self._thread.start()

    # What a test may ask for

    def open(self, path: str) -> FakeDevice:
        """Stands for ``_hsm.Device``."""
        with self.changed:
            self.log("open", path)
            err = self._due("open")
            if err:
                raise failed(f"open {path}", err)
            device = FakeDevice(self, self._next_fd)
            self._next_fd += 1
            self.devices.append(device)
            return device

    def fail(self, name: str, err: int, *, after: int = 0, times: int = 1) -> None:
        """Let *times* future calls fail with *err*, after so many others of that name."""
        self._faults.setdefault(name, []).extend((after + i, err) for i in range(times))

    @property
    def vm(self) -> FakeVm:
        """The one virtual machine there is."""
        assert len(self.live) == 1
        return self.live[0]

    def names(self, *without: str) -> list[str]:
        """What was called, in order, without these."""
        return [call.name for call in self.calls if call.name not in without]

    def close(self) -> None:
        """Look for what was left, as the end of a test."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)
        assert self.violations == []
        assert self.devices == []
        assert self.live == []

    # The module

    def log(self, name: str, argument: Any = None) -> None:
        self.calls.append(Call(name, argument))

    def ioctl(self, device: FakeDevice, request: int, argument: int | bytearray) -> int:
        name = NUMBERS.get(request)
        if name is None:
            self.violations.append(f"unknown request {request:#x}")
            return -errno.ENOTTY
        if device.fd < 0:
            return -errno.EBADF
        with self.changed:
            self.log(name, decode(name, argument))
            err = self._due(name)
            if err:
                return -err
            if name == "CREATE_VM":
                return self._create(device, argument)
            if device.vm is None:
                return -errno.EINVAL
            return int(getattr(self, f"_{name.lower()}")(device.vm, argument) or 0)

    def _due(self, name: str) -> int:
        faults = self._faults.pop(name, [])
        self._faults[name] = [(after - 1, err) for after, err in faults if after]
        return next((err for after, err in faults if after == 0), 0)

    def _create(self, device: FakeDevice, argument: Any) -> int:
        _, reserved0, _, reserved1, name, flags, page, affinity = creation = CREATION.unpack(argument)
        if reserved0 | reserved1 or device.vm is not None:
            return -errno.EINVAL
        if page % PAGE:
            self.violations.append("the request page is not page aligned")
        if any(vm.creation[4] == name for vm in self.live):
            return -errno.EINVAL
        if flags & 1 << 1 and not flags & self.real_time:  # local APICs are passed through to real-time guests only
            return -errno.EINVAL
        vcpus = affinity.bit_count() if self.vcpus is None else self.vcpus
        view = memoryview((ctypes.c_char * PAGE).from_address(page)).cast("B")
        device.vm = self.make_vm(self, len(self.live) + 1, vcpus, creation, view)
        for i in range(16):
            device.vm._set(SLOT * i + STATE, FREE)
        self.live.append(device.vm)
        struct.pack_into("<HHH", argument, 0, device.vm.vmid, 0, vcpus)
        return 0

    def destroyed(self, vm: FakeVm, how: str) -> None:
        if vm.state != "paused":
            self.violations.append(f"VM {vm.vmid} is left to the hypervisor: {how} while {vm.state}")
        if vm.client:
            self.violations.append(f"VM {vm.vmid} is destroyed while its client exists")
        self.live.remove(vm)
        for kick in vm.kicks:
            os.close(kick.fd)
        for theirs in list(vm.calls):
            self._unhook(vm, theirs)
        vm.slots.release()
        self.changed.notify_all()

    def _destroy_vm(self, vm: FakeVm, _: Any) -> int:
        if vm.state != "paused":
            return -errno.EPERM
        self.destroyed(vm, "DESTROY_VM")
        vm.state, vm.epoch = "off", vm.epoch + 1
        next(d for d in self.devices if d.vm is vm).vm = None
        return 0

    def _start_vm(self, vm: FakeVm, _: Any) -> int:
        if vm.state != "created":
            return -errno.EPERM
        if not vm.client:
            self.violations.append("START_VM before CREATE_IOREQ_CLIENT")
        if vm.registers is None:
            self.violations.append("START_VM before SET_VCPU_REGS")
        vm.state = "running"
        self.changed.notify_all()
        return 0

    def _pause_vm(self, vm: FakeVm, _: Any) -> int:
        vm.state, vm.epoch = "paused", vm.epoch + 1
        self.changed.notify_all()
        return 0

    def _reset_vm(self, vm: FakeVm, _: Any) -> int:
        if vm.state != "paused":
            return -errno.EPERM
        if vm.waiting:
            self.violations.append(f"RESET_VM with requests of vCPUs {vm.waiting} unanswered")
        for i in range(16):
            vm._set(SLOT * i + STATE, FREE)
        vm.state, vm.registers = "created", None
        vm.pending_msis.clear()
        return 0

    def _set_vcpu_regs(self, vm: FakeVm, argument: Any) -> int:
        if vm.state not in ("created", "paused"):
            return -errno.EPERM
        fields = VCPU_REGS.unpack(argument)
        if any(fields[28:32]) or any(fields[34:37]):
            return -errno.EINVAL
        vm.registers = fields
        return 0

    def _create_ioreq_client(self, vm: FakeVm, _: Any) -> int:
        if vm.client:
            return -errno.EEXIST
        vm.client, vm.destroying = True, False
        return 0

    def _destroy_ioreq_client(self, vm: FakeVm, _: Any) -> None:
        vm.client, vm.destroying = False, True
        vm.waiting.clear()
        self.changed.notify_all()

    def _attach_ioreq_client(self, vm: FakeVm, _: Any) -> int:
        self.changed.wait_for(lambda: vm.waiting or vm.spurious or not vm.client or vm.state == "off")
        if not vm.client or vm.state == "off":
            return -errno.ENODEV
        if vm.spurious:
            vm.spurious -= 1
            self.changed.notify_all()
        return 0

    def _notify_request_finish(self, vm: FakeVm, argument: Any) -> int:
        vmid, reserved, vcpu = NOTIFY.unpack(argument)
        if reserved or vcpu >= vm.vcpus:
            return -errno.EINVAL
        if vmid != vm.vmid:
            self.violations.append(f"NOTIFY for VM {vmid}, which is {vm.vmid}")
        if vcpu not in vm.waiting:
            self.violations.append(f"NOTIFY for vCPU {vcpu}, which has no request")
        vm.waiting.discard(vcpu)
        vm._complete(vcpu)
        return 0

    def _clear_vm_ioreq(self, vm: FakeVm, _: Any) -> None:
        if vm.state != "paused":
            self.violations.append("CLEAR_VM_IOREQ while the VM is not paused")
        for vcpu in list(vm.waiting):
            vm.waiting.discard(vcpu)
            vm._set(SLOT * vcpu + STATE, COMPLETE)

    def _set_memseg(self, vm: FakeVm, argument: Any) -> int:
        kind, attr, gpa, hva, length = MEMMAP.unpack(argument)
        if kind > 1 or hva % PAGE or gpa % PAGE or length % PAGE or not length:
            return -errno.EINVAL
        if attr != 7:
            self.violations.append(f"SET_MEMSEG with attributes {attr:#x}")
        vm.memory.append((gpa, hva, length))
        return 0

    def _inject_msi(self, vm: FakeVm, argument: Any) -> int:
        message = MSI.unpack(argument)
        if message[0] >> 20 != 0xFEE:
            return -errno.EPERM
        self._deliver(vm, message)
        return 0

    def _deliver(self, vm: FakeVm, message: tuple[int, int]) -> None:
        vm.msis.append(message)
        vm.pending_msis.append(message)
        self.changed.notify_all()

    def _set_irqline(self, vm: FakeVm, argument: int) -> int:
        gsi, op = argument & 0xFFFF_FFFF, argument >> 32
        if gsi >= 48:
            return -errno.EPERM
        if op > 1:
            self.violations.append(f"SET_IRQLINE operation {op}")
        vm.lines[gsi] = op
        self.changed.notify_all()
        return 0

    def _ioeventfd(self, vm: FakeVm, argument: Any) -> int:
        fd, flags, addr, length, reserved, data = IOEVENTFD.unpack(argument)
        if reserved:
            return -errno.EINVAL
        inode = self._eventfd(fd)
        if inode < 0:
            return inode
        if flags & 4:
            found = next((k for k in vm.kicks if self._eventfd(k.fd) == inode), None)
            if found is not None:
                if bool(found.flags & 8) != bool(flags & 8):
                    self.violations.append("IOEVENTFD: the ASYNCIO flag of DEASSIGN is not that of ASSIGN")
                vm.kicks.remove(found)
                os.close(found.fd)
            return 0
        if length not in (1, 2, 4, 8):
            return -errno.EINVAL
        if flags & 8 and not vm.asyncio:
            return -errno.ENODEV
        if flags & 8 and sum(bool(k.flags & 8) for k in vm.kicks) >= ASYNCHRONOUS_KICKS:
            self.violations.append("IOEVENTFD: the hypervisor has no room for one more asynchronous kick")
            return -errno.EINVAL
        match = data if flags & 2 else None
        for k in vm.kicks:
            same = self._eventfd(k.fd) == inode and (k.addr, k.pio) == (addr, bool(flags & 1))
            if same and (k.data is None or match is None or k.data == match):
                return -errno.EEXIST
        vm.kicks.append(Kick(os.dup(fd), fd, flags, addr, length, match))
        return 0

    def _irqfd(self, vm: FakeVm, argument: Any) -> int:
        fd, flags, addr, data = IRQFD.unpack(argument)
        inode = self._eventfd(fd)
        if inode < 0:
            return inode
        theirs = next((n for n, (_, _, node) in vm.calls.items() if node == inode), None)
        if flags & 1:
            if theirs is not None:
                self._unhook(vm, theirs)
            return 0
        if theirs is not None:
            return -errno.EBUSY
        own = os.dup(fd)
        vm.calls[fd] = (own, (addr, data), inode)
        self._hooks[own] = (vm, (addr, data))
        self._epoll.register(own, select.EPOLLIN | select.EPOLLET)  # each write is an edge, as for a wait queue
        return 0

    def _unhook(self, vm: FakeVm, theirs: int) -> None:
        own, _, _ = vm.calls.pop(theirs)
        self._epoll.unregister(own)
        self._hooks.pop(own)
        os.close(own)

    def _eventfd(self, fd: int) -> int:
        """Identify the eventfd behind *fd*; minus errno if it is none."""
        try:
            with open(f"/proc/self/fdinfo/{fd}") as info:
                lines = dict(line.split(":", 1) for line in info.read().splitlines() if ":" in line)
        except OSError:
            return -errno.EBADF
        return int(lines["eventfd-id"]) + 1 if "eventfd-id" in lines else -errno.EINVAL

    def _watch_calls(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._wake:
                    return
                with self.changed:
                    hook = self._hooks.get(fd)
                    if hook is not None:
                        self._deliver(*hook)

    def _setup_asyncio(self, vm: FakeVm, argument: int) -> int:
        return self._extra(vm, argument, "asyncio", 8)

    def _setup_vm_event_ring(self, vm: FakeVm, argument: int) -> int:
        return self._extra(vm, argument, "events", 32)

    def _extra(self, vm: FakeVm, address: int, what: str, element: int) -> int:
        if not self.acrn_kernel:
            return -errno.ENOTTY
        if address % PAGE:
            return -errno.EINVAL
        page = memoryview((ctypes.c_char * PAGE).from_address(address)).cast("B")
        magic, count, size, head, tail, flags, _, overruns, total = RING.unpack_from(page)
        assert (magic, size, total) == (0x5AA57AA71AA13AA3, element, count * element)
        assert (head, tail, flags, overruns) == (0, 0, 0, 0)
        if what == "asyncio":
            vm.asyncio = True
        else:
            vm.events = page
        return 0

    def _pm_get_cpu_state(self, vm: FakeVm, argument: Any) -> int:
        (command,) = struct.unpack_from("<Q", argument)
        if command >> 24 & 0xFF != vm.vmid:
            return -errno.EPERM
        answers = self.states.get((command >> 16 & 0xFF, command & 0xFF))
        answer = None if answers is None else answers.get(command >> 8 & 0xFF)
        if answer is None:
            return -errno.EPERM
        argument[: len(answer)] = answer
        return 0

    def _vm_intr_monitor(self, vm: FakeVm, argument: int) -> int:
        if argument % PAGE:
            return -errno.EPERM
        page = memoryview((ctypes.c_char * PAGE).from_address(argument)).cast("B")
        return self.monitor(page) if self.monitor is not None else -errno.EPERM
