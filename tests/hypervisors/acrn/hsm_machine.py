"""A whole machine on the stand-in of ACRN's kernel module, and a guest for it: a thread that plays its processor."""

import contextlib
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from acrn_dm.boot.acpi.build import build_acpi
from acrn_dm.cli import main
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.types import Bdf, HypervisorOptions
from acrn_dm.hypervisors.acrn import cpus
from acrn_dm.hypervisors.acrn import hsm as hsm_plugin
from acrn_dm.hypervisors.acrn.cpus import place
from acrn_dm.hypervisors.acrn.module.abi import HSM
from acrn_dm.hypervisors.acrn.vm import AcrnVm
from acrn_dm.machine.build import build
from acrn_dm.machine.machine import Machine, StopReason
from acrn_dm.memory.guest_memory import GuestMemory
from acrn_dm.testing import VirtioDriver
from acrn_dm.testing.guest_pci import GuestFunction
from acrn_dm.testing.heap import GuestHeap
from acrn_dm.testing.register_access import ModernRegisters
from tests.boot.samples import make_bzimage
from tests.hypervisors.acrn.fake_abi import Call
from tests.hypervisors.acrn.fake_acrn_vm import PATIENCE_S, FakeVm, VcpuGoneError
from tests.hypervisors.acrn.fake_hsm import FakeHsm
from tests.hypervisors.acrn.hsm_rig import HOST_IDS

MIB = 1 << 20
DISK_SLOT = 3
SECTOR = 512
CONTENT = bytes(range(256)) * 2
PM1_CONTROL, RESET_CONTROL = 0x404, 0xCF9
SMI_COMMAND, ACPI_ENABLE, SCI_EN = 0xB2, 0xA0, 1 << 0
S3, S5 = 3 << 10 | 1 << 13, 5 << 10 | 1 << 13  # SLP_TYP as in the DSDT, SLP_EN
WAKING_VECTOR, WAKING_CODE = 12, 0x9_A000  # offset in the FACS; where a kernel would have its code
SYSTEM_RESET, FULL_RESET = 0x06, 0x0E
DATA_PATH = ("ATTACH_IOREQ_CLIENT", "NOTIFY_REQUEST_FINISH")
DEASSIGN = {"IOEVENTFD": 4, "IRQFD": 1}

WARNING, DEBUG = 2, 5  # of --logger_setting

Program = Callable[["Guest"], object]


class Witness:
    """The plugin through which the guest learns of its machine."""

    __name__ = "witness"

    def __init__(self, guest: "Guest") -> None:
        self.guest = guest

    @hookimpl
    def acrn_dm_machine_started(self, machine: Machine) -> None:
        self.guest.machine = machine


@attrs.define(eq=False)
class Guest:
    """One program for each start of its processor. A program is over when its last access is never answered."""

    hsm: FakeHsm
    programs: Sequence[Program] = ()
    machine: Machine | None = None
    vm: FakeVm | None = None
    errors: list[BaseException] = attrs.field(factory=list)
    heap: GuestHeap = attrs.field(init=False)
    _over: bool = False
    _thread: threading.Thread | None = None

    @property
    def memory(self) -> GuestMemory:
        assert self.machine is not None
        assert self.machine.memory is not None
        return self.machine.memory

    def start(self, *programs: Program) -> None:
        self.programs = programs
        self._thread = threading.Thread(target=self._run, name="guest", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for the processor; raise what went wrong in a program."""
        with self.hsm.changed:
            self._over = True
            self.hsm.changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self.errors:
            raise self.errors[0]

    def start_disk(self, *, msix: bool = True) -> VirtioDriver:
        """A driver, as firmware or a kernel has one."""
        assert self.vm is not None
        function = GuestFunction(self.vm, DISK_SLOT)
        driver = VirtioDriver(cast(Any, self), function, ModernRegisters(function), msix=msix)
        driver.start()
        return driver

    def read_disk(self) -> VirtioDriver:
        """Start the driver, read a sector by kick and interrupt."""
        assert self.vm is not None
        vm, driver = self.vm, self.start_disk()
        vm.take_msis()
        self.request(driver)
        interrupt = driver.function.message_data(driver.default_vector(0))
        self._wait(lambda: interrupt in [data for _, data in vm.pending_msis])
        (done,) = driver.queue(0).completed()
        assert done.data == CONTENT + b"\0"
        return driver

    def request(self, driver: VirtioDriver) -> None:
        """Ask for a sector."""
        driver.queue(0).send([bytes(16)], [SECTOR, 1])
        driver.queue(0).kick()

    def until(self, condition: Callable[[], bool]) -> None:
        """Look again and again; each look is a request to the device model."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline

    def settle(self) -> None:
        """For the driver: here everything runs by itself."""

    def power_off(self) -> None:
        """As a system does that has switched ACPI on."""
        assert self.vm is not None
        self.vm.pio_write(SMI_COMMAND, 1, ACPI_ENABLE)
        self.vm.pio_write(PM1_CONTROL, 2, S5 | SCI_EN)

    def suspend(self) -> None:
        """S3, until somebody presses the power button."""
        assert self.vm is not None
        assert self.machine is not None
        facs = next(gpa for gpa, data in build_acpi(self.machine.boot_source.plan().acpi) if data[:4] == b"FACS")
        self.memory.write(facs + WAKING_VECTOR, struct.pack("<I", WAKING_CODE))
        try:
            self.vm.pio_write(PM1_CONTROL, 2, S3)
        finally:
            self.machine.press_power_button()

    def reset(self, how: int) -> None:
        assert self.vm is not None
        self.vm.pio_write(RESET_CONTROL, 1, how)

    def _run(self) -> None:
        try:
            for number, program in enumerate(self.programs, 1):
                self._wait(lambda number=number: self._over or self._runs(number))
                if self._over:
                    return
                self.heap = GuestHeap(MIB, 8 * MIB)
                with contextlib.suppress(VcpuGoneError):
                    program(self)
        except BaseException as e:
            self.errors.append(e)
            if self.machine is not None:
                self.machine.power.request(StopReason.FORCED, "the guest's program failed")

    def _runs(self, starts: int) -> bool:
        if self.hsm.names().count("START_VM") < starts or len(self.hsm.live) != 1:
            return False
        self.vm = self.hsm.vm
        return self.vm.state == "running"

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self.hsm.changed:
            assert self.hsm.changed.wait_for(condition, PATIENCE_S), self.hsm.names(*DATA_PATH)


@attrs.define(eq=False)
class Scene:
    """The module, a machine's configuration, and the guest."""

    hsm: FakeHsm
    guest: Guest
    plugins: PluginManager
    config: MachineConfig
    tolerated: str = ""  # part of a violation that a failing call makes unavoidable

    def run(self, *programs: Program) -> StopReason:
        """The whole life of one machine."""
        machine = build(self.config, self.plugins)
        self.guest.start(*programs)
        try:
            machine.realize()
            return machine.run()
        finally:
            machine.close()
            self.guest.end()

    def command(self, *programs: Program, level: int = WARNING) -> int:
        """The same by the command line; its exit code. Log records from *level* on go to stderr."""
        config = self.config
        argv = [
            *("--hypervisor", config.hypervisor, "--cpu_affinity", str(HOST_IDS[0])),
            *("-m", f"{config.memory_bytes // MIB}M", "--hugepages", config.hugepages, "-k", str(config.kernel)),
            *(word for spec in config.devices for word in ("-s", f"{spec.bdf.slot},{spec.kind},{spec.text}")),
            *("--logger_setting", f"console,level={level}", config.name),
        ]
        self.guest.start(*programs)
        try:
            return main(argv, make_manager=lambda **_: self.plugins)
        finally:
            self.guest.end()

    def close(self) -> None:
        """Look for what was left."""
        if self.tolerated:
            self.hsm.violations[:] = [text for text in self.hsm.violations if self.tolerated not in text]
        self.hsm.close()

    def sequence(self) -> list[str]:
        """The calls in order, but for those of the data path; bindings with + and -."""
        return [shown(call) for call in self.hsm.calls if call.name not in DATA_PATH]


def shown(call: Call) -> str:
    """A call as a sequence has it."""
    flag = DEASSIGN.get(call.name)
    if flag is None:
        return call.name
    return f"{call.name} {'-' if call.argument[1] & flag else '+'}"


def make_scene(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A machine with one disk; the ``hsm`` plugin finds the stand-in where the device file would be."""
    hsm = FakeHsm()

    def open_vm(options: HypervisorOptions) -> AcrnVm:
        placement = place(options.cpu_affinity, HOST_IDS)
        return AcrnVm.open(HSM, options, placement, open_device=hsm.open, sleep=hsm.slept.append)

    monkeypatch.setattr(hsm_plugin, "open_vm", open_vm)
    monkeypatch.setattr(hsm_plugin, "probe", lambda: None)
    monkeypatch.setattr(cpus, "host_lapic_ids", lambda: HOST_IDS)
    (folder / "kernel").write_bytes(make_bzimage())
    (folder / "disk").write_bytes(CONTENT * 8)
    guest = Guest(hsm)
    config = MachineConfig(
        hypervisor="hsm",
        cpu_affinity=HOST_IDS[:1],
        kernel=folder / "kernel",
        memory_bytes=128 * MIB,
        hugepages="off",
        devices=(DeviceSpec(bdf=Bdf(slot=DISK_SLOT), kind="virtio-blk", text=str(folder / "disk")),),
    )
    plugins = make_plugin_manager(entry_points=False, extra=[Witness(guest)])
    return Scene(hsm, guest, plugins, config)
