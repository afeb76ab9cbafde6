"""Access rules of the configuration space: read-only, writable, cleared by one, byte enables, reset."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.pci.config_space import ConfigSpace
from tests.pci.parts import COMMAND, Probe, Setup


@pytest.fixture
def config() -> ConfigSpace:
    config = ConfigSpace()
    config.define(0x40, 4, 0x1122_3344, writable=0x00FF_00FF)
    config.define(0x44, 2, 0xFFFF, clear_by_one=0x0F0F)
    return config


def test_write_changes_writable_bits_only(config: ConfigSpace) -> None:
    config.write(0x40, 4, 0xAABB_CCDD)
    assert config.read(0x40, 4) == 0x11BB_33DD


def test_byte_write_leaves_neighbours(config: ConfigSpace) -> None:
    config.write(0x42, 1, 0x99)
    assert config.read(0x40, 4) == 0x1199_3344


def test_writing_one_clears_and_writing_zero_keeps(config: ConfigSpace) -> None:
    config.write(0x44, 2, 0x0003)
    assert config.read(0x44, 2) == 0xFFFC


def test_write_of_one_does_not_clear_other_bits(config: ConfigSpace) -> None:
    config.write(0x44, 2, 0xF0F0)
    assert config.read(0x44, 2) == 0xFFFF


def test_excess_bits_of_a_value_are_ignored(config: ConfigSpace) -> None:
    config.write(0x40, 1, 0x1_5678)
    assert config.read(0x40, 2) == 0x3378


def test_device_store_ignores_access_rules_and_is_gone_after_reset(config: ConfigSpace) -> None:
    config.set(0x40, 4, 0)
    assert config.read(0x40, 4) == 0
    config.reset()
    assert config.read(0x40, 4) == 0x1122_3344


def test_power_on_store_survives_reset_and_keeps_rules(config: ConfigSpace) -> None:
    config.set_power_on(0x40, 4, 0x5500_6600)
    config.write(0x40, 4, 0xFFFF_FFFF)
    assert config.read(0x40, 4) == 0x55FF_66FF
    config.reset()
    assert config.read(0x40, 4) == 0x5500_6600


@pytest.mark.parametrize("reg", [0x00, 0x08, 0x2C])
def test_identity_registers_are_read_only(reg: int) -> None:
    function = Probe()
    setup = Setup(function)
    before = setup.read(function, reg)
    setup.write(function, reg, ~before & 0xFFFF_FFFF)
    assert setup.read(function, reg) == before


def test_command_has_decoding_and_bus_master_on_at_power_on() -> None:
    function = Probe()
    assert Setup(function).read(function, COMMAND, 2) == 7
    assert function.io_enabled
    assert function.memory_enabled
    assert function.bus_master


def test_command_reserved_bits_stay_zero() -> None:
    function = Probe()
    setup = Setup(function)
    setup.write(function, COMMAND, 0xFFFF, 2)
    assert setup.read(function, COMMAND, 2) == 0x0547


def test_command_change_is_reported_once_and_same_value_is_not() -> None:
    function = Probe()
    setup = Setup(function)
    setup.write(function, COMMAND, 3, 2)
    setup.write(function, COMMAND, 3, 2)
    assert function.calls == [("command",)]


def test_interrupt_line_is_storage() -> None:
    function = Probe()
    setup = Setup(function)
    setup.write(function, 0x3C, 0x0B, 1)
    assert setup.read(function, 0x3C, 1) == 0x0B


def test_reset_restores_power_on_dump() -> None:
    function = Probe()
    function.use_intx()
    function.add_msix(1, 3)
    setup = Setup(function)
    before = [setup.read(function, reg) for reg in range(0, 256, 4)]
    for reg in range(0, 256, 4):
        setup.write(function, reg, 0xA5A5_5A5A)
    with function.lock:
        function.reset()
    assert [setup.read(function, reg) for reg in range(0, 256, 4)] == before


@given(
    writes=st.lists(
        st.tuples(st.integers(0, 0x1FF), st.sampled_from([1, 2, 4, 8, 3]), st.integers(0, 2**64 - 1)), max_size=30
    )
)
def test_any_sequence_of_writes_never_raises_and_identity_stays(writes: list[tuple[int, int, int]]) -> None:
    function = Probe()
    function.use_intx()
    function.add_msix(1, 2)
    function.add_msi()
    setup = Setup(function)
    identity = setup.read(function, 0)
    for reg, size, value in writes:
        setup.write(function, reg, value, size)
        assert 0 <= setup.read(function, reg, size) < 1 << (8 * size)
    assert setup.read(function, 0) == identity
    assert setup.capability(function, 0x11)
