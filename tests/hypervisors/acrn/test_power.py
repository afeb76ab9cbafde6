"""Power states of the host's processors, as the hypervisor tells them."""

import errno
import struct

import pytest

from acrn_dm.contract.processors import CState, GenericAddress, ProcessorPower, PState
from tests.hypervisors.acrn.hsm_rig import rig

PX = struct.pack("<6Q", 2400, 15000, 10, 11, 0x1800, 0x1801)
CX = struct.pack("<BBBBQ B3x I 4x Q", 0x7F, 1, 2, 3, 0x60, 2, 151, 500)


def power(states: dict[tuple[int, int], dict[int, bytes]], vcpus: int = 1) -> tuple[ProcessorPower, ...]:
    with rig(vcpus=vcpus) as r:
        r.hsm.states = states
        return r.vm.processor_power()


def test_power_states_are_read_one_by_one_idle_ones_from_1() -> None:
    states = {(0, 0): {0: b"\2garbage"}, (0, 1): {0: PX, 1: PX}, (0, 2): {0: b"\1"}, (0, 3): {1: CX}}
    register = GenericAddress(space=0x7F, bit_width=1, bit_offset=2, access_size=3, address=0x60)
    pstate = PState(
        frequency_mhz=2400, power_mw=15000, transition_us=10, bus_master_us=11, control=0x1800, status=0x1801
    )
    cstate = CState(register=register, type=2, latency_us=151, power_mw=500)
    assert power(states) == (ProcessorPower(pstates=(pstate, pstate), cstates=(cstate,)),)


def test_hypervisor_that_refuses_all_gives_nothing() -> None:
    assert power({}, vcpus=2) == ()


def test_count_0_of_performance_states_is_continuous() -> None:
    assert power({(0, 0): {0: b"\0"}}) == (ProcessorPower(continuous=True),)


def test_table_with_a_gap_is_none() -> None:
    states = {(0, 0): {0: b"\3"}, (0, 1): {0: PX, 2: PX}, (0, 2): {0: b"\2"}, (0, 3): {1: CX}}
    assert power(states) == ()


@pytest.mark.parametrize("err", [errno.EFAULT, errno.ENOMEM])
def test_failure_to_ask_for_power_states_is_logged(err: int, caplog: pytest.LogCaptureFixture) -> None:
    with rig() as r:
        r.hsm.fail("PM_GET_CPU_STATE", err)
        assert r.vm.processor_power() == ()
    assert errno.errorcode[err] in caplog.text
