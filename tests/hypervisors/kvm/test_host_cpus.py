"""hypervisors.kvm.host_cpus: LAPIC ids on a host whose own scheduler runs the vCPUs, and the pins themselves."""

import os
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.kvm import host_cpus
from acrn_dm.hypervisors.kvm import plugin as kvm
from acrn_dm.hypervisors.kvm.host_cpus import cpus_by_lapic_id, pins
from acrn_dm.hypervisors.kvm.vm import KvmVm
from tests.hypervisors.guest_program import Out, Spin
from tests.hypervisors.guests import Guest

PORT = 0x500
HOST = {0: 0, 2: 1, 64: 2, 66: 3}


def test_cpus_are_read_with_their_lapic_ids(tmp_path: Path) -> None:
    text = "".join(
        f"processor\t: {cpu}\nmodel name\t: x\ncore id\t\t: 0\napicid\t\t: {lapic_id}\ninitial apicid\t: 9\n\n"
        for cpu, lapic_id in ((0, 0), (1, 64), (3, 66))
    )
    (tmp_path / "cpuinfo").write_text(text)
    assert cpus_by_lapic_id(tmp_path / "cpuinfo") == {0: 0, 64: 1, 66: 3}


@pytest.mark.parametrize("text", ["", "processor\t: 0\nflags\t: x\n\nprocessor\t: 1\n"])
def test_host_that_does_not_tell_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpus_by_lapic_id(tmp_path / "cpuinfo") == {}
    assert cpus_by_lapic_id(tmp_path / "absent") == {}


def test_this_hosts_cpus_are_found() -> None:
    if "apicid" not in host_cpus.CPUINFO.read_text():
        pytest.skip("/proc/cpuinfo has no LAPIC ids")
    assert set(cpus_by_lapic_id().values()) >= os.sched_getaffinity(0)


def test_vcpus_get_their_cpus_in_the_hosts_order() -> None:
    assert pins((66, 2), HOST, {0, 1, 2, 3}) == (1, 3)


@pytest.mark.parametrize(
    ("ids", "host", "message"),
    [
        ((2, 3), HOST, "--cpu_affinity: '2,3': no CPU has the LAPIC id 3; this host's LAPIC ids: 0,2,64,66"),
        ((0,), {}, "--cpu_affinity: '0': no CPU has the LAPIC id 0; this host's LAPIC ids: not told by /proc/cpuinfo"),
        ((0, 66), HOST, "'0,66': CPU 3, with the LAPIC id 66, is not one that this process may use"),
    ],
)
def test_impossible_affinity_names_option_and_choice(ids: tuple[int, ...], host: dict[int, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pins(ids, host, {0, 1, 2})
    assert message in str(caught.value)


def test_check_finds_it_before_anything_is_open() -> None:
    assert kvm.check(HypervisorOptions()) == []
    assert "no CPU has the LAPIC id 4294967294" in kvm.check(HypervisorOptions(cpu_affinity=(0xFFFF_FFFE,)))[0]


@pytest.mark.process
def test_each_vcpu_runs_on_its_cpu_only() -> None:
    cpu = max(os.sched_getaffinity(0))
    try:
        guest = Guest(KvmVm.open(vcpus=1, allow_slow=True, pins=(cpu,)))
    except HostError as e:
        pytest.skip(str(e))
    seen: list[set[int]] = []
    guest.recorder.on_access = lambda access: seen.append(os.sched_getaffinity(0))
    guest.start(Out(PORT, 1, 1), Spin())
    guest.wait_for(lambda: bool(seen))
    guest.close()
    assert seen == [{cpu}]
    assert len(os.sched_getaffinity(0)) >= len(seen[0])


def test_option_reaches_the_virtual_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, Any] = {}
    monkeypatch.setattr(KvmVm, "open", lambda **arguments: opened.update(arguments))
    monkeypatch.setattr(host_cpus, "cpus_by_lapic_id", lambda: {7: min(os.sched_getaffinity(0))})
    kvm.open_vm(HypervisorOptions(cpu_affinity=(7,)))
    assert opened["pins"] == (min(os.sched_getaffinity(0)),)
