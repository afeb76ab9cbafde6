"""Which hypervisor a machine gets, and what it makes of options that only ACRN has: taken, ignored, or refused."""

import logging
from typing import Any

import attrs
import pytest

from acrn_dm.base.errors import ConfigError, PluginError
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.interrupt_monitor import InterruptMonitor
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.types import HypervisorOptions, HypervisorType
from acrn_dm.hypervisors.acrn.module.interface import ACRN_OPTIONS
from acrn_dm.machine.build import build
from acrn_dm.machine.hypervisor import choose_hypervisor, find_hypervisor, hypervisor_options, unprovided

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
        found = find_hypervisor(config, plugins)
    assert found.problem is None
    assert [record.message.split(":")[0] for record in caplog.records] == ["--rtvm", "--lapic_pt"]


def test_refused_option_is_found_before_anything_is_open() -> None:
    machine = build(MachineConfig(hypervisor="sim", enable_trusty=True), make_plugin_manager(entry_points=False))
    assert "--enable_trusty: sim has none; it needs the hypervisor hsm" in machine.check()
    machine.close()


def ranked(name: str, reason: str | None, rank: int) -> HypervisorType:
    return HypervisorType(name=name, summary="", probe=lambda: reason, open=lambda o: None, rank=rank)


def offering(*types: HypervisorType) -> PluginManager:
    class Offer:
        __name__ = "offer"

        @hookimpl
        def acrn_dm_hypervisor_types(self) -> tuple[HypervisorType, ...]:
            return types

    return make_plugin_manager(builtins={}, entry_points=False, extra=[Offer()])


def test_auto_takes_the_usable_hypervisor_of_highest_rank() -> None:
    plugins = offering(ranked("a", None, 1), ranked("b", "no", 9), ranked("c", None, 5))
    assert choose_hypervisor(MachineConfig(), plugins).name == "c"


def test_auto_never_takes_a_hypervisor_of_negative_rank_and_says_why_nothing_is_usable() -> None:
    plugins = offering(ranked("sim", None, -1), ranked("kvm", "no /dev/kvm", 10))
    with pytest.raises(ConfigError, match=r"no hypervisor can be used here: kvm: no /dev/kvm$"):
        choose_hypervisor(MachineConfig(), plugins)


def test_unknown_hypervisor_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'xen'.*known: auto, kvm"):
        choose_hypervisor(MachineConfig(hypervisor="xen"), offering(ranked("kvm", None, 1)))


@pytest.mark.parametrize(
    ("probe", "said"), [(lambda: 1 / 0, "ZeroDivisionError"), (lambda: False, "probe returned bool")]
)
def test_auto_passes_over_a_hypervisor_whose_probe_is_broken_and_who_asks_for_it_is_told(probe: Any, said: str) -> None:
    broken = attrs.evolve(ranked("broken", None, 9), probe=probe)
    plugins = offering(broken, ranked("good", None, 1))
    assert choose_hypervisor(MachineConfig(), plugins).name == "good"
    with pytest.raises(PluginError, match=said):
        find_hypervisor(MachineConfig(hypervisor="broken"), plugins)


def test_name_that_two_hypervisors_have_is_an_error_for_who_asks_and_none_for_auto() -> None:
    plugins = offering(ranked("kvm", None, 1), ranked("kvm", None, 2))
    assert choose_hypervisor(MachineConfig(), plugins).name == "kvm"
    with pytest.raises(ConfigError, match=r"--hypervisor: 'kvm': .*offers the hypervisor 'kvm' twice"):
        choose_hypervisor(MachineConfig(hypervisor="kvm"), plugins)
