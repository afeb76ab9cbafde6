"""The ``hsm`` plugin, or ``vhm`` with RIG_VHM, under many requests: 8 vCPUs at once, spurious
ATTACH returns, signals all the time.

``python -m lab.hsm.storm ACCESSES [VCPUS]``, with the rig preloaded. Prints what it counted.
"""

import contextlib
import json
import os
import signal
import sys
import threading

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IoEventFd, Space
from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.contract.registers import BootRegisters, Segment
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn.cpus import Placement, place
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module.abi import HSM, Abi
from acrn_dm.hypervisors.acrn.module.vhm_abi import VHM
from acrn_dm.hypervisors.acrn.vm import AcrnVm

KEY = 0x5A5A_5A5A_5A5A_5A5A
KICK = 0xD800_0000
DONE_PORT = 0x5F0
FLAT = BootRegisters(rip=0, code=Segment(selector=8, access=0xC09B), data=Segment(selector=16, access=0xC093))


@attrs.define(eq=False)
class Device:
    """Registers that read as what was written last, exclusive-or'ed with a constant; keeps ``base.Dispatch``."""

    vcpus: int
    registers: dict[tuple[str, int], int] = attrs.field(factory=dict)
    accesses: int = 0
    done: set[int] = attrs.field(factory=set)
    events: list[str] = attrs.field(factory=list)
    finished: threading.Event = attrs.field(factory=threading.Event)

    def pio_read(self, port: int, size: int) -> int:
        return self._read("pio", port)

    def pio_write(self, port: int, size: int, value: int) -> None:
        self._write("pio", port, value)
        if port == DONE_PORT:
            self.done.add(value)
            if len(self.done) == self.vcpus:
                self.finished.set()

    def mmio_read(self, gpa: int, size: int) -> int:
        return self._read("mmio", gpa)

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        self._write("mmio", gpa, value)

    def pci_config_read(self, function: int, register: int, size: int) -> int:
        return self._read("config", function << 12 | register)

    def pci_config_write(self, function: int, register: int, size: int, value: int) -> None:
        self._write("config", function << 12 | register, value)

    def vcpu_must_wait(self) -> bool:
        return False

    def vm_event(self, event: VmEvent, detail: str) -> None:
        self.events.append(f"{event.value}: {detail}")
        self.finished.set()

    def _read(self, space: str, address: int) -> int:
        self.accesses += 1
        return self.registers.get((space, address), 0) ^ KEY

    def _write(self, space: str, address: int, value: int) -> None:
        self.accesses += 1
        self.registers[space, address] = value


def main() -> None:
    count, vcpus = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8
    os.environ["RIG_STORM"] = str(count)
    signals = 0

    def on_signal(*_: object) -> None:
        nonlocal signals
        signals += 1

    signal.signal(signal.SIGALRM, on_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    ids = tuple(range(vcpus))
    options = HypervisorOptions(name="storm", vcpus=vcpus, cpu_affinity=ids)
    interface: tuple[Abi, Placement] = (HSM, place(ids, range(vcpus)))
    if os.environ.get("RIG_VHM"):
        interface = (VHM, Placement(affinity=0, apic_ids=()))
    abi, placement = interface
    device = Device(vcpus)
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    error = ""
    try:
        opened = AcrnVm.open(abi, options, placement, open_device=_hsm.Device, sleep=lambda _: None)
        with contextlib.closing(opened) as vm:
            storm(vm, device, fd)
    except HostError as e:
        error = str(e)
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.eventfd_write(fd, 1)  # reading waits for something
    kicks = os.eventfd_read(fd) - 1
    print(
        json.dumps(
            {"accesses": device.accesses, "kicks": kicks, "signals": signals, "events": device.events, "error": error}
        )
    )


def storm(vm: AcrnVm, device: Device, fd: int) -> None:
    """Run to the end; *fd* counts kicks."""
    kick = IoEventFd(fd=fd, space=Space.MMIO, addr=KICK, len=4)
    vm.ioeventfd(kick, True)
    vm.set_boot_registers(FLAT)
    vm.run(device)
    while not device.finished.wait(0.05):
        pass
    vm.stop()
    vm.ioeventfd(kick, False)


if __name__ == "__main__":
    main()
