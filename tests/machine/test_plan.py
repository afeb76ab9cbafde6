"""What a hypervisor makes of options that only ACRN has: taken, ignored with a line, or refused."""

import logging
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from acrn_dm.boot.smbios.identity import lasting_uuid
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.interrupt_monitor import InterruptMonitor
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import HypervisorOptions, HypervisorType
from acrn_dm.devices import virtio_blk, virtio_console
from acrn_dm.hypervisors.acrn.module.abi import ACRN_OPTIONS
from acrn_dm.machine.machine import build
from acrn_dm.machine.parts import find_hypervisor
from acrn_dm.machine.plan import FILES_OF_A_DEVICE, descriptors, hypervisor_options, unprovided
from acrn_dm.testing import SimMachine

MONITOR = InterruptMonitor(threshold=10000, period_s=10, delay_ms=1, duration_ms=100)
NONE = "kvm-like has none; it needs the hypervisor hsm"


def hypervisor(name: str = "kvm-like", **more: Any) -> HypervisorType:
    return HypervisorType(name=name, summary="for tests", probe=lambda: None, open=lambda options: None, **more)


@pytest.mark.parametrize(
    ("options", "ignored", "refused"),
    [
        ({}, [], []),
        ({"rtvm": True}, [f"--rtvm: ignored: {NONE}"], []),
        ({"rtvm": True, "lapic_pt": True}, [f"--rtvm: ignored: {NONE}", f"--lapic_pt: ignored: {NONE}"], []),
        ({"interrupt_monitor": MONITOR}, [f"--intr_monitor: ignored: {NONE}"], []),
        ({"enable_trusty": True}, [], [f"--enable_trusty: {NONE}"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_without_acrn_what_makes_it_slower_is_ignored_and_what_makes_it_another_guest_is_refused(
    options: dict[str, Any], ignored: list[str], refused: list[str]
) -> None:
    assert unprovided(MachineConfig(**options), hypervisor()) == (ignored, refused)


@pytest.mark.parametrize(
    ("options", "ignored"),
    [
        ({"rtvm": True, "lapic_pt": True, "enable_trusty": True, "interrupt_monitor": MONITOR}, []),
        ({"lapic_pt": True}, ["--lapic_pt: ignored: only with --rtvm"]),
    ],
    ids=["all", "lapic_pt"],
)
def test_acrn_takes_them_all_but_lapic_pt_alone(options: dict[str, Any], ignored: list[str]) -> None:
    assert unprovided(MachineConfig(**options), hypervisor(takes=ACRN_OPTIONS)) == (ignored, [])


@pytest.mark.parametrize("takes", [(), ACRN_OPTIONS], ids=["none", "acrn"])
def test_cpus_are_checked_by_every_hypervisor(takes: tuple[str, ...]) -> None:
    def check(options: HypervisorOptions) -> list[str]:
        return [f"no CPU {options.cpu_affinity}"]

    found = unprovided(MachineConfig(cpu_affinity=(64,)), hypervisor(takes=takes, check=check))
    assert found == ([], ["no CPU (64,)"])


def test_options_of_the_guests_kind_reach_the_hypervisor() -> None:
    config = MachineConfig(name="rt", vcpus=2, cpu_affinity=(2, 4), rtvm=True, enable_trusty=True)
    assert hypervisor_options(config, hypervisor(takes=ACRN_OPTIONS)) == HypervisorOptions(
        name="rt", vcpus=2, cpu_affinity=(2, 4), plugin_options={"rtvm": True, "enable_trusty": True}
    )


def test_hypervisor_is_given_the_built_in_options_that_it_takes_and_no_others() -> None:
    config = MachineConfig(rtvm=True, enable_trusty=True, plugin_options={"trace": "on"})
    options = hypervisor_options(config, hypervisor(takes=("rtvm", "lapic_pt")))
    assert options.plugin_options == {"trace": "on", "rtvm": True}


def test_ignored_option_is_in_the_log_and_the_machine_can_run(caplog: pytest.LogCaptureFixture) -> None:
    plugins = make_plugin_manager(entry_points=False)
    config = MachineConfig(hypervisor="sim", rtvm=True, lapic_pt=True)
    with caplog.at_level(logging.WARNING):
        _, problem = find_hypervisor(config, plugins)
    assert problem is None
    assert [record.message.split(":")[0] for record in caplog.records] == ["--rtvm", "--lapic_pt"]


def test_refused_option_is_found_before_anything_is_open() -> None:
    machine = build(MachineConfig(hypervisor="sim", enable_trusty=True), make_plugin_manager(entry_points=False))
    assert "--enable_trusty: sim has none; it needs the hypervisor hsm" in machine.check()
    machine.close()


DEVICES = {
    "virtio-console": "pty:a,pty:b",
    "virtio-blk": "{folder}/disk,nocache",
}


@pytest.mark.parametrize("kind", DEVICES)
def test_machine_opens_no_more_files_than_were_counted_and_not_many_less(kind: str, tmp_path: Path) -> None:
    """Of ten devices under their drivers. The simulated hypervisor duplicates each eventfd; a real one does not."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    text = DEVICES[kind].format(folder=tmp_path)
    before = files()
    with SimMachine(plugins=[virtio_blk, virtio_console]) as machine:
        for slot in range(3, 13):
            machine.add(kind, f"{text},share=on" if kind == "virtio-blk" else text, slot=slot)
        for slot in range(3, 13):
            machine.driver(slot).start()
        duplicates = len(machine.vm.kicks.bindings) + len(machine.vm.interrupts.bindings)
        used = files() - before - duplicates
        counted = descriptors(MachineConfig(), machine.bus)
    assert used <= counted <= used + 64 + 2 + 10 * FILES_OF_A_DEVICE


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("given", [None, UUID(int=7)])
def test_guest_has_the_uuid_it_is_given_or_one_that_its_name_makes(given: UUID | None, tmp_path: Path) -> None:
    config = MachineConfig(name="vm7", uuid=given, hypervisor="sim", kernel=tmp_path / "kernel")
    identity = build(config, make_plugin_manager(entry_points=False)).boot_plan().identity
    assert identity is not None
    assert (identity.name, identity.uuid) == ("vm7", given or lasting_uuid("vm7"))
