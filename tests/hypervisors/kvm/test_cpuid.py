"""CPUID leaves of a guest, from what a host offers."""

import attrs
import pytest

from acrn_dm.hypervisors.kvm.cpuid import CpuidLeaf, Topology, guest_cpuid
from acrn_dm.hypervisors.kvm.module._system import CPUID_INDEXED

INTEL = CpuidLeaf(function=0x8000_0000, eax=0x8000_0008)
AMD = CpuidLeaf(function=0x8000_0000, eax=0x8000_0021, ebx=0x6874_7541, ecx=0x444D_4163, edx=0x6974_6E65)
HOST_FEATURES = CpuidLeaf(function=1, ebx=0x5510_0800, ecx=1 << 24, edx=1 << 28)


def one(leaf: CpuidLeaf, topology: Topology, vendor: CpuidLeaf = INTEL) -> CpuidLeaf:
    """What becomes of one leaf."""
    (found,) = (
        x for x in guest_cpuid([vendor, leaf], topology) if (x.function, x.index) == (leaf.function, leaf.index)
    )
    return found


def vcpu(apic_id: int, count: int, **more: int) -> Topology:
    return Topology(apic_id=apic_id, apic_ids=tuple(range(count)), **more)


@pytest.mark.parametrize(("count", "addressable"), [(2, 2), (3, 4), (8, 8), (9, 16)])
def test_leaf_1_has_apic_id_and_addressable_ids(count: int, addressable: int) -> None:
    leaf = one(HOST_FEATURES, vcpu(1, count))
    assert leaf.ebx == 1 << 24 | addressable << 16 | 0x0800
    assert leaf.edx >> 28 & 1 == 1


def test_leaf_1_of_a_single_vcpu_is_no_multi_processor() -> None:
    leaf = one(HOST_FEATURES, vcpu(0, 1))
    assert leaf.ebx == 0x0800
    assert leaf.edx >> 28 & 1 == 0


def test_leaf_1_has_hypervisor_bit_and_deadline_timer_only_if_kvm_has_it() -> None:
    assert one(HOST_FEATURES, vcpu(0, 1)).ecx == 1 << 31 | 1 << 24
    assert one(HOST_FEATURES, attrs.evolve(vcpu(0, 1), tsc_deadline=False)).ecx == 1 << 31


@pytest.mark.parametrize(("level", "sharers"), [(1, 1), (2, 1), (3, 4)])
def test_caches_are_private_below_level_3(level: int, sharers: int) -> None:
    host = CpuidLeaf(function=4, index=0, flags=CPUID_INDEXED, eax=0xFC0F_C001 & ~0xE0 | level << 5)
    leaf = one(host, vcpu(0, 4))
    assert leaf.eax >> 14 & 0xFFF == sharers - 1
    assert leaf.eax >> 26 == 3
    assert leaf.eax & 0x3FFF == host.eax & 0x3FFF


def test_amd_caches_have_no_core_count() -> None:
    leaf = one(CpuidLeaf(function=0x8000_001D, index=3, flags=CPUID_INDEXED, eax=0x4163), vcpu(0, 2), AMD)
    assert leaf.eax == 0x4163 & 0x3FFF | 1 << 14


def test_end_of_the_caches_stays() -> None:
    end = CpuidLeaf(function=4, index=0, flags=CPUID_INDEXED)
    assert one(end, vcpu(0, 4)) == end


@pytest.mark.parametrize("function", [0xB, 0x1F])
def test_extended_topology_has_levels_thread_core_end(function: int) -> None:
    host = [CpuidLeaf(function=function, index=i, flags=CPUID_INDEXED, eax=7, ebx=99, edx=0x55) for i in range(2)]
    leaves = guest_cpuid([INTEL, *host], vcpu(2, 3))[1:]
    assert [(x.index, x.eax, x.ebx, x.ecx, x.edx, x.flags) for x in leaves] == [
        (0, 0, 1, 0x100, 2, CPUID_INDEXED),
        (1, 2, 3, 0x201, 2, CPUID_INDEXED),
        (2, 0, 0, 2, 2, CPUID_INDEXED),
    ]


def test_host_without_extended_topology_gets_none() -> None:
    assert [x.function for x in guest_cpuid([INTEL, HOST_FEATURES], vcpu(0, 2))] == [0x8000_0000, 1]


def test_amd_core_count_and_id_bits() -> None:
    leaf = one(CpuidLeaf(function=0x8000_0008, eax=0x3030, ecx=0x7001), vcpu(1, 3), AMD)
    assert (leaf.eax, leaf.ecx) == (0x3030, 0x2002)


def test_amd_extended_apic_id() -> None:
    leaf = one(CpuidLeaf(function=0x8000_001E, eax=0x55, ebx=0x0122, ecx=0x301), vcpu(1, 3), AMD)
    assert (leaf.eax, leaf.ebx, leaf.ecx) == (1, 1, 0)


@pytest.mark.parametrize(("count", "legacy"), [(1, 0), (2, 2)])
def test_amd_cmp_legacy_only_with_several_cores(count: int, legacy: int) -> None:
    assert one(CpuidLeaf(function=0x8000_0001, ecx=0x13), vcpu(0, count), AMD).ecx == 0x11 | legacy


def test_intel_keeps_the_leaves_that_amd_has_fixed() -> None:
    host = CpuidLeaf(function=0x8000_0008, eax=0x3027)
    assert one(host, vcpu(1, 3)) == host


def test_kvm_range_gets_a_timing_leaf() -> None:
    signature = CpuidLeaf(function=0x4000_0000, eax=0x4000_0001, ebx=0x4B4D_564B)
    leaves = guest_cpuid([INTEL, signature], vcpu(0, 1, tsc_khz=2_600_000))
    assert leaves[1:] == [
        attrs.evolve(signature, eax=0x4000_0010),
        CpuidLeaf(function=0x4000_0010, eax=2_600_000, ebx=1_000_000),
    ]


def test_sparse_apic_ids_widen_the_core_part() -> None:
    place = Topology(apic_id=6, apic_ids=(4, 6))
    assert one(HOST_FEATURES, place).ebx == 6 << 24 | 8 << 16 | 0x0800
