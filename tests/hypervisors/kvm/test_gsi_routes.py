"""The routing table that KVM gets: pins and MSI messages."""

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import MsiMessage
from acrn_dm.hypervisors.kvm.gsi_routes import Chips, MsiRoutes, pin_routes

MASTER, SLAVE, IOAPIC = 0, 1, 2
A, B, C = (MsiMessage(addr=0xFEE0_0000 + (i << 12), data=0x40 + i) for i in range(3))


def refuse(_: object) -> None:
    raise HostError("KVM_SET_GSI_ROUTING")


@pytest.fixture
def installed() -> list[list[tuple[int, int, int]]]:
    return []


@pytest.fixture
def routes(installed: list[list[tuple[int, int, int]]]) -> MsiRoutes:
    return MsiRoutes(26, installed.append)


def test_timer_is_at_ioapic_pin_2_and_nothing_else_is() -> None:
    table = pin_routes(Chips(pic_master=MASTER, pic_slave=SLAVE, ioapic=IOAPIC))
    assert [route for route in table if route[1:] == (IOAPIC, 2)] == [(0, IOAPIC, 2)]
    assert [route for route in table if route[0] == 0] == [(0, MASTER, 0), (0, IOAPIC, 2)]
    assert all(route[1:] != (IOAPIC, 0) for route in table)


def test_isa_lines_reach_pic_and_ioapic_and_pci_lines_the_ioapic() -> None:
    table = pin_routes(Chips(pic_master=MASTER, pic_slave=SLAVE, ioapic=IOAPIC))
    assert {route for route in table if route[0] == 4} == {(4, MASTER, 4), (4, IOAPIC, 4)}
    assert {route for route in table if route[0] == 12} == {(12, SLAVE, 4), (12, IOAPIC, 12)}
    assert [route for route in table if route[0] >= 16] == [(gsi, IOAPIC, gsi) for gsi in range(16, 24)]


def test_messages_get_gsis_behind_the_pins(routes: MsiRoutes, installed: list[object]) -> None:
    assert (routes.acquire(A), routes.acquire(B)) == (24, 25)
    assert installed[-1] == [(24, A.addr, A.data), (25, B.addr, B.data)]


def test_one_message_has_one_gsi_until_its_last_user_leaves(routes: MsiRoutes, installed: list[object]) -> None:
    assert routes.acquire(A) == routes.acquire(A) == 24
    routes.release(A)
    assert routes.gsi(A) == 24
    assert len(installed) == 1
    routes.release(A)
    assert len(installed) == 1


def test_message_that_comes_back_costs_the_kernel_nothing(routes: MsiRoutes, installed: list[object]) -> None:
    routes.acquire(A)
    for _ in range(100):
        routes.release(A)
        assert routes.acquire(A) == 24
    assert len(installed) == 1


def test_gsi_idle_for_longest_is_used_again_when_none_is_left(
    routes: MsiRoutes, installed: list[list[tuple[int, int, int]]]
) -> None:
    routes.acquire(A)
    routes.acquire(B)
    routes.release(B)
    routes.release(A)
    assert routes.acquire(C) == 25
    assert sorted(installed[-1]) == [(24, A.addr, A.data), (25, C.addr, C.data)]
    assert routes.acquire(A) == 24


def test_idle_route_stays_when_the_kernel_refuses_its_successor(routes: MsiRoutes) -> None:
    routes.acquire(A)
    routes.acquire(B)
    routes.release(A)
    routes.install = refuse
    with pytest.raises(HostError):
        routes.acquire(C)
    assert routes.acquire(A) == 24


def test_no_gsi_left_is_a_host_error_and_changes_nothing(routes: MsiRoutes, installed: list[object]) -> None:
    routes.acquire(A)
    routes.acquire(B)
    with pytest.raises(HostError, match="all 26 interrupt routes"):
        routes.acquire(C)
    assert len(installed) == 2


def test_refused_table_is_taken_back() -> None:
    routes = MsiRoutes(26, refuse)
    with pytest.raises(HostError):
        routes.acquire(A)
    routes.install = lambda table: None
    assert routes.acquire(B) == 24
