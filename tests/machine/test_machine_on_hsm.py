"""A whole machine on the stand-in of ACRN's kernel module: what the guest asks for becomes the reference's calls."""

import contextlib
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.boot.acpi.build import build_acpi
from acrn_dm.contract.config import DeviceSpec, Firmware, MachineConfig
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.interrupt_monitor import InterruptMonitor
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf, HypervisorOptions, HypervisorType
from acrn_dm.hypervisors.acrn.cpus import place
from acrn_dm.hypervisors.acrn.module.abi import HSM
from acrn_dm.hypervisors.acrn.module.interface import ACRN_OPTIONS
from acrn_dm.hypervisors.acrn.vm import AcrnVm
from acrn_dm.machine.build import build
from acrn_dm.machine.machine import Machine, StopReason
from tests.boot.samples import make_bzimage
from tests.hypervisors.acrn.fake_acrn_vm import PATIENCE_S, VcpuGoneError
from tests.hypervisors.acrn.fake_hsm import FakeHsm

MIB = 1 << 20
BORN = ["open", "CREATE_VM", "SETUP_ASYNCIO", "SETUP_VM_EVENT_RING", "SET_MEMSEG"]
POWER = ["PM_GET_CPU_STATE"] * 4  # count of performance and idle states, of two vCPUs
START = [*POWER, "SET_VCPU_REGS", "CREATE_IOREQ_CLIENT", "START_VM"]
AGAIN = [*POWER, "SET_VCPU_REGS", "START_VM"]


class Plugin:
    """A hypervisor whose module is the stand-in."""

    def __init__(self, hsm: FakeHsm) -> None:
        self.hsm = hsm

    def open(self, options: HypervisorOptions) -> AcrnVm:
        placement = place(options.cpu_affinity, (0, 2, 4, 6))
        return AcrnVm.open(HSM, options, placement, open_device=self.hsm.open, sleep=self.hsm.slept.append)

    @hookimpl
    def acrn_dm_hypervisor_types(self) -> list[HypervisorType]:
        return [
            HypervisorType(
                name="hsm-stand-in",
                summary="for tests",
                probe=lambda: None,
                open=self.open,
                ioapic_pins=48,
                needs_pit=True,
                takes=ACRN_OPTIONS,
            )
        ]


@attrs.define(eq=False)
class Rig:
    """A machine that runs on a thread of its own; the test is its guest."""

    hsm: FakeHsm
    machine: Machine
    _thread: threading.Thread = attrs.field(init=False)
    outcome: list[StopReason] = attrs.field(factory=list, init=False)

    def start(self) -> None:
        self.machine.realize()
        self._thread = threading.Thread(target=lambda: self.outcome.append(self.machine.run()), daemon=True)
        self._thread.start()
        self.wait_state("running")

    def wait_state(self, state: str) -> None:
        self.wait(lambda: bool(self.hsm.live) and self.hsm.vm.state == state)

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.hsm.changed:
            assert self.hsm.changed.wait_for(condition, PATIENCE_S), self.hsm.names()

    def last_words(self, port: int, size: int, value: int) -> None:
        """An access that the guest may not survive."""
        with contextlib.suppress(VcpuGoneError):
            self.hsm.vm.pio_write(port, size, value)

    def power_off(self) -> None:
        """As an operating system does it: ACPI is on, and SCI_EN preserved."""
        self.hsm.vm.pio_write(0xB2, 1, 0xA0)
        self.last_words(0x404, 2, 0x3401)

    def sequence(self) -> list[str]:
        """The calls since the last time, but for those of accesses."""
        names = self.hsm.names("ATTACH_IOREQ_CLIENT", "NOTIFY_REQUEST_FINISH")
        self.hsm.calls.clear()
        return names

    def finish(self) -> StopReason:
        self._thread.join(PATIENCE_S)
        assert self.outcome
        return self.outcome[0]


def make_config(tmp_path: Path, **changes: Any) -> MachineConfig:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(make_bzimage())
    values: dict[str, Any] = {
        "name": "vm",
        "kernel": kernel,
        "vcpus": 2,
        "memory_bytes": 128 * MIB,
        "cpu_affinity": (6, 2),
        "hypervisor": "hsm-stand-in",
        "hugepages": "off",
        "devices": (
            DeviceSpec(bdf=Bdf(slot=0), kind="hostbridge"),
            DeviceSpec(bdf=Bdf(slot=3), kind="virtio-console", text="@file:one=/dev/null"),
            DeviceSpec(bdf=Bdf(slot=4), kind="virtio-console", text="@file:two=/dev/null"),
        ),
    }
    return MachineConfig(**{**values, **changes})


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    made: list[Rig] = []

    def make(**changes: Any) -> Rig:
        hsm = FakeHsm()
        plugins = make_plugin_manager(entry_points=False, extra=[Plugin(hsm)])
        made.append(Rig(hsm, build(make_config(tmp_path, **changes), plugins)))
        return made[-1]

    yield make
    for rig in made:
        rig.machine.close()
        rig.hsm.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    made = make_rig()
    made.start()
    return made


def test_start_tells_the_idle_level_of_each_pci_line(rig: Rig) -> None:
    lines = [call.argument for call in rig.hsm.calls if call.name == "SET_IRQLINE"]
    assert lines == [(16, 0), (17, 0)]
    assert rig.sequence() == [*BORN, "SET_IRQLINE", "SET_IRQLINE", *START]
    rig.power_off()
    rig.finish()


def test_power_off(rig: Rig) -> None:
    rig.sequence()
    rig.power_off()
    assert rig.finish() is StopReason.POWEROFF
    rig.machine.close()
    assert rig.sequence() == ["PAUSE_VM", "DESTROY_IOREQ_CLIENT", "DESTROY_VM", "close"]


def test_triple_fault_right_after_the_start_is_an_error_though_it_comes_as_a_power_off(rig: Rig) -> None:
    with contextlib.suppress(VcpuGoneError):
        rig.hsm.vm.triple_fault()
    assert rig.finish() is StopReason.ERROR
    assert re.fullmatch(r"triple fault \d+ ms after its start", rig.machine.detail)


def test_triple_fault_of_a_guest_that_has_run_is_a_reset_though_it_comes_as_a_power_off(rig: Rig) -> None:
    rig.hsm.vm.pio_write(0xB2, 1, 0xA0)
    rig.machine.guest.faults.clock = lambda: time.monotonic() + 100
    rig.sequence()
    with contextlib.suppress(VcpuGoneError):
        rig.hsm.vm.triple_fault()
    rig.wait(lambda: "START_VM" in rig.hsm.names() and rig.hsm.live[0].state == "running")
    assert rig.machine.power.reboots == 1
    rig.power_off()
    assert rig.finish() is StopReason.POWEROFF


def reboot(rig: Rig, value: int) -> list[str]:
    """Reset through port 0xCF9 and return the calls up to the new start."""
    rig.sequence()
    rig.last_words(0xCF9, 1, value)
    rig.wait(lambda: "START_VM" in rig.hsm.names() and rig.hsm.live[0].state == "running")
    return rig.sequence()


def test_system_reset_is_in_place_and_withholds_the_answer(rig: Rig) -> None:
    memory = rig.machine.memory
    assert memory is not None
    memory.write(0x7F_0000, b"secret")
    vm = rig.hsm.vm
    assert reboot(rig, 0x06) == ["PAUSE_VM", "CLEAR_VM_IOREQ", "RESET_VM", *AGAIN]
    assert rig.hsm.vm is vm
    assert memory.read(0x7F_0000, 6) == bytes(6)
    rig.power_off()
    assert rig.finish() is StopReason.POWEROFF


def test_full_reset_makes_the_vm_anew(rig: Rig) -> None:
    vm = rig.hsm.vm
    end = ["PAUSE_VM", "DESTROY_IOREQ_CLIENT", "DESTROY_VM", "close"]
    assert reboot(rig, 0x0E) == [*end, *BORN, "SET_IRQLINE", "SET_IRQLINE", *START]
    assert rig.hsm.vm is not vm
    rig.power_off()
    assert rig.finish() is StopReason.POWEROFF


def test_five_resets_in_a_row(rig: Rig) -> None:
    for value in (0x06, 0x0E, 0x06, 0x06, 0x0E):
        reboot(rig, value)
    assert rig.machine.power.reboots == 5
    rig.power_off()
    assert rig.finish() is StopReason.POWEROFF


def fall_asleep(rig: Rig, vector: int) -> None:
    """Leave a waking vector and ask for S3."""
    memory = rig.machine.memory
    assert memory is not None
    facs = next(gpa for gpa, data in build_acpi(rig.machine.boot_source.plan().acpi) if data[:4] == b"FACS")
    memory.write(facs + 12, struct.pack("<I", vector))
    rig.sequence()
    rig.last_words(0x404, 2, 0x2C00)
    rig.wait(lambda: "PAUSE_VM" in rig.hsm.names())  # what wakes it may come at once


def wake(rig: Rig) -> None:
    rig.machine.press_power_button()
    rig.wait_state("running")


def test_sleep_and_wake_by_the_power_button(rig: Rig) -> None:
    memory = rig.machine.memory
    assert memory is not None
    memory.write(0x7F_0000, b"kept")
    fall_asleep(rig, 0x9_A010)
    wake(rig)
    assert rig.sequence() == ["PAUSE_VM", "CLEAR_VM_IOREQ", "RESET_VM", "SET_VCPU_REGS", "START_VM"]
    registers = rig.hsm.vm.registers
    assert registers is not None
    # rip, cs_base, cr0; cs_ar, cs_limit, cs_sel: real mode at the vector
    assert (registers[21:24], registers[32:34], registers[37]) == ((0, 0x9_A010, 0x30), (0x9F, 0xFFFF), 0x9A01)
    assert memory.read(0x7F_0000, 4) == b"kept"
    assert rig.hsm.vm.pio_read(0x400, 2) == 0x8000  # WAK_STS
    rig.power_off()
    assert rig.finish() is StopReason.POWEROFF


def test_sleeper_without_a_vector_boots_anew(rig: Rig) -> None:
    fall_asleep(rig, 0)
    rig.machine.press_power_button()
    rig.wait(lambda: rig.hsm.names().count("CREATE_VM") == 1 and rig.hsm.live[0].state == "running")
    assert rig.machine.power.reboots == 1
    rig.power_off()
    assert rig.finish() is StopReason.POWEROFF


def test_sleeper_can_be_forced_off(rig: Rig) -> None:
    fall_asleep(rig, 0x9_A000)
    rig.machine.power.request(StopReason.FORCED)
    assert rig.finish() is StopReason.FORCED


def test_alarm_of_the_clock_wakes_if_the_guest_has_enabled_it(rig: Rig) -> None:
    vm = rig.hsm.vm
    vm.pio_write(0x402, 2, 1 << 10)  # PM1 enable: RTC
    for register, value in ((1, 0xC0), (3, 0xC0), (5, 0xC0), (0x0B, 0x22)):  # every second; alarm interrupt, 24 hours
        vm.pio_write(0x70, 1, register)
        vm.pio_write(0x71, 1, value)
    fall_asleep(rig, 0x9_A000)
    rig.wait(lambda: "START_VM" in rig.hsm.names())
    rig.power_off()
    assert rig.finish() is StopReason.POWEROFF


def test_vcpus_have_the_lapic_ids_of_their_cpus(rig: Rig) -> None:
    memory = rig.machine.memory
    assert memory is not None
    assert rig.machine.boot_source.plan().acpi.apic_ids == (2, 6)
    table = memory.read(0xF2500, 64)
    assert table[:4] == b"APIC"
    assert (table[47], table[55]) == (2, 6)
    rig.power_off()
    rig.finish()


def test_power_states_of_the_hypervisor_are_in_the_dsdt(make_rig: MakeRig) -> None:
    rig = make_rig()
    px = struct.pack("<6Q", 2400, 15000, 10, 11, 0x1800, 0x1801)
    rig.hsm.states = {(0, 0): {0: b"\1"}, (0, 1): {0: px}}
    rig.start()
    dsdt = next(data for _, data in build_acpi(rig.machine.boot_source.plan().acpi) if data[:4] == b"DSDT")
    assert b"_PSS" in dsdt
    assert b"PR01" in dsdt
    rig.power_off()
    rig.finish()


def test_timer_is_emulated_and_ticks_on_its_line(rig: Rig) -> None:
    vm = rig.hsm.vm
    vm.pio_write(0x43, 1, 0x34)  # counter 0, both bytes, mode 2
    vm.pio_write(0x40, 1, 0xA9)
    vm.pio_write(0x40, 1, 0x04)  # 1000 Hz
    rig.wait(lambda: [c.argument for c in rig.hsm.calls if c.name == "SET_IRQLINE"].count((2, 0)) >= 3)
    rig.power_off()
    rig.finish()


def test_storm_monitor_is_started_with_the_machine(make_rig: MakeRig) -> None:
    settings = InterruptMonitor(threshold=1, period_s=3600, delay_ms=1, duration_ms=1)
    rig = make_rig(interrupt_monitor=settings)
    rig.start()
    assert isinstance(rig.machine.vm, AcrnVm)
    assert rig.machine.vm._monitor is not None
    rig.power_off()
    rig.finish()


def test_start_that_fails_half_way_leaves_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(devices=(DeviceSpec(bdf=Bdf(slot=3), kind="virtio-console", text="@file:one=/no/such/file"),))
    with pytest.raises(HostError):
        rig.machine.realize()
    rig.machine.close()
    assert rig.sequence()[-3:] == ["PAUSE_VM", "DESTROY_VM", "close"]


def test_firmware_starts_at_its_reset_vector(make_rig: MakeRig, tmp_path: Path) -> None:
    image = tmp_path / "OVMF.fd"
    image.write_bytes(b"\x90" * (2 * MIB))
    rig = make_rig(firmware=Firmware(image=image))
    rig.start()
    registers = rig.hsm.vm.registers
    assert registers is not None
    assert (registers[21:24], registers[32:34], registers[37]) == ((0xFFF0, 0xFFFF_0000, 0x30), (0x9F, 0xFFFF), 0xF000)
    assert rig.hsm.vm.mmio_read(0xFFFF_FFF0, 4) == 0x9090_9090
    assert [memory[0] for memory in rig.hsm.vm.memory] == [0, 0xFFE0_0000]
    rig.power_off()
    rig.finish()
