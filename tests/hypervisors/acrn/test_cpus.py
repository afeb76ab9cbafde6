"""The host's CPUs as ACRN's hypervisor counts them, and the virtual CPUs' places on them."""

import struct
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn import cpus
from acrn_dm.hypervisors.acrn import hsm as plugin
from acrn_dm.hypervisors.acrn.cpus import MADT, host_lapic_ids, parse_madt, place


def madt(*entries: bytes) -> bytes:
    return bytes(44) + b"".join(entries)


def local_apic(apic_id: int, *, enabled: bool = True) -> bytes:
    return struct.pack("<BBBBI", 0, 8, 0, apic_id, enabled)


def test_lapic_ids_are_the_enabled_ones_in_table_order() -> None:
    ioapic = struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC0_0000, 0)
    table = madt(local_apic(4), ioapic, local_apic(7, enabled=False), local_apic(2))
    assert parse_madt(table) == (4, 2)


@pytest.mark.parametrize("table", [b"", bytes(44), madt(b"\0"), madt(bytes(8)), madt(local_apic(1)[:5])])
def test_broken_table_has_no_cpus(table: bytes) -> None:
    assert parse_madt(table) == ()


def test_table_that_cannot_be_read_is_a_host_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"reading .*no.*ENOENT.*run as root"):
        host_lapic_ids(tmp_path / "no")


def test_vcpus_have_the_ids_in_the_hypervisors_order() -> None:
    assert place((6, 2), (0, 2, 4, 6)).apic_ids == (2, 6)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), "--cpu_affinity: ACRN needs the host CPUs of each virtual CPU; this host's LAPIC ids: 0,2,4"),
        ((2, 3), "--cpu_affinity: '2,3': no CPU has the LAPIC id 3; this host's LAPIC ids: 0,2,4"),
        ((2, 2), "--cpu_affinity: '2,2': a LAPIC id is given twice"),
    ],
)
def test_impossible_affinity_names_option_and_choice(ids: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place(ids, (0, 2, 4))
    assert str(caught.value) == message


def test_check_says_what_is_wrong_with_the_affinity_before_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "host_lapic_ids", lambda: (0, 2))
    assert plugin.check(HypervisorOptions(cpu_affinity=(2,))) == []
    assert "no CPU has the LAPIC id 9" in plugin.check(HypervisorOptions(cpu_affinity=(9,)))[0]


def test_this_hosts_table_can_be_read() -> None:
    if not MADT.exists():
        pytest.skip(f"no {MADT}")
    assert host_lapic_ids()
