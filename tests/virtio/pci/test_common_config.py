"""The common configuration structure: features, queue registers, vectors, odd accesses (pci.common.*, pci.msix.*)."""

import itertools
from collections.abc import Iterator

import pytest

from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.register_access import COMMON, ModernRegisters
from acrn_dm.virtio.core import MAX_UNKNOWN_WORDS
from acrn_dm.virtio.features import OFFERED_BY_PCI
from tests.virtio.parts import SLOT, Echo, device_of, machine_with

NO_VECTOR = 0xFFFF
FEATURES_OK, DRIVER_OK = 8, 4


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with machine_with() as made:
        yield made


@pytest.fixture
def driver(machine: SimMachine) -> VirtioDriver:
    return machine.driver(SLOT)


def registers(driver: VirtioDriver) -> ModernRegisters:
    assert isinstance(driver.registers, ModernRegisters)
    return driver.registers


def dump(driver: VirtioDriver) -> dict[str, int | list[int]]:
    """Every register, those of queues for every queue."""
    common = registers(driver)
    values: dict[str, int | list[int]] = {name: common.read(name) for name in COMMON if not name.startswith("queue_")}
    for index in range(common.read("num_queues")):
        common.write("queue_select", index)
        values[f"queue {index}"] = [common.read(name) for name in COMMON if name.startswith("queue_")]
    return values


@pytest.mark.parametrize("select", [2, 3, 4, 5, 0x8000_0000, 0xFFFF_FFFF])
def test_device_feature_is_zero_where_there_are_no_bits(driver: VirtioDriver, select: int) -> None:
    driver.registers.write("device_feature_select", select)
    assert driver.registers.read("device_feature") == 0
    assert driver.registers.read("device_feature_select") == select


def test_offered_are_the_devices_bits_and_the_rings_but_not_any_layout(driver: VirtioDriver) -> None:
    assert driver.registers.offered() == Echo.offers | 1 << 28 | 1 << 29 | 1 << 32 | 1 << 34 | OFFERED_BY_PCI


@pytest.mark.parametrize("order", list(itertools.permutations((0, 1, 2, 3))))
def test_row_47_driver_feature_words_do_not_disturb_each_other(driver: VirtioDriver, order: tuple[int, ...]) -> None:
    """Anchor 47: a 64-bit value written in halves overwrote the other half."""
    values = {0: 0x2000_0020, 1: 1, 2: 0, 3: 0}
    for select in order:
        driver.registers.write("driver_feature_select", select)
        driver.registers.write("driver_feature", values[select])
    for select in order:
        driver.registers.write("driver_feature_select", select)
        assert driver.registers.read("driver_feature") == values[select]


@pytest.mark.parametrize("bit", [0, 13, 27, 36, 64, 127])
def test_features_ok_refuses_a_bit_that_is_not_offered(driver: VirtioDriver, bit: int) -> None:
    assert driver.negotiate(1 << bit) == 0
    assert not driver.status & FEATURES_OK


def test_features_ok_refuses_bits_past_the_last_word(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = 3
    driver.registers.accept(1 << 32)
    driver.registers.write("driver_feature_select", 1 << 20)
    driver.registers.write("driver_feature", 1)
    driver.status = 11
    assert not driver.status & FEATURES_OK


@pytest.mark.parametrize("word", [4, 5, 31, 1 << 20, 0xFFFF_FFFF])
def test_feat_accept_valid_subset(driver: VirtioDriver, word: int) -> None:
    """feat.accept_valid_subset: a bit past the last word that was set and cleared again is not accepted: what is
    left is a valid subset.
    """
    driver.reset()
    driver.status = 3
    driver.registers.accept(1 << 32)
    for value in (1, 0x8000_0000, 0):
        driver.registers.write("driver_feature_select", word)
        driver.registers.write("driver_feature", value)
    driver.status = 11
    assert driver.status & FEATURES_OK


def test_feat_accept_valid_subset_after_a_refusal(driver: VirtioDriver) -> None:
    """feat.accept_valid_subset: a driver that was refused may take the bit back and try again."""
    driver.reset()
    driver.status = 3
    driver.registers.accept(1 << 32)
    driver.registers.write("driver_feature_select", 4)
    driver.registers.write("driver_feature", 2)
    driver.status = 11
    assert not driver.status & FEATURES_OK
    driver.registers.write("driver_feature", 0)
    driver.status = 11
    assert driver.status & FEATURES_OK


def test_bits_in_more_words_than_are_remembered_are_refused_until_the_reset(
    machine: SimMachine, driver: VirtioDriver
) -> None:
    driver.reset()
    driver.status = 3
    driver.registers.accept(1 << 32)
    for value in (1, 0):
        for word in range(4, 4 + 2 * MAX_UNKNOWN_WORDS):
            driver.registers.write("driver_feature_select", word)
            driver.registers.write("driver_feature", value)
            assert len(machine.bus.functions[0].core._unknown_words) <= MAX_UNKNOWN_WORDS + 1  # type: ignore[attr-defined]
    driver.status = 11
    assert not driver.status & FEATURES_OK
    assert driver.start()


def test_row_30_order_can_not_be_had_where_it_is_not_offered(driver: VirtioDriver) -> None:
    """QEMU 6fcf5ebafa (IN_ORDER)."""
    assert not driver.registers.offered() & 1 << 35
    assert driver.negotiate(1 << 35) == 0
    assert not driver.status & FEATURES_OK


def test_same_negotiation_succeeds_again_after_each_reset(driver: VirtioDriver) -> None:
    assert len({driver.start() for _ in range(5)}) == 1


def test_every_single_offered_bit_is_accepted(driver: VirtioDriver) -> None:
    offered = driver.registers.offered()
    for bit in range(128):
        if offered >> bit & 1:
            assert driver.negotiate(1 << bit)


def test_features_do_not_change_after_features_ok(driver: VirtioDriver) -> None:
    accepted = driver.negotiate()
    driver.registers.accept(0)
    driver.registers.write("driver_feature_select", 0)
    assert driver.registers.read("driver_feature") == accepted & 0xFFFF_FFFF


def test_driver_ok_needs_features_ok(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = 1 | 2 | DRIVER_OK
    assert driver.status == 3
    assert device_of(machine).calls == []


def test_power_on_values(driver: VirtioDriver) -> None:
    common = registers(driver)
    assert common.read("num_queues") == 2
    for index, size in ((0, 64), (1, 16)):
        assert common.queue_size(index) == size
        assert common.read("queue_msix_vector") == NO_VECTOR
        assert common.read("queue_enable") == 0
    assert common.read("config_msix_vector") == NO_VECTOR


@pytest.mark.parametrize("select", [2, 0x7FFF, 0xFFFF])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_row_42_row_56_registers_of_a_queue_that_does_not_exist_are_harmless(
    driver: VirtioDriver, select: int, size: int
) -> None:
    """Anchors 42 and 56: selector out of bounds, then every register in every width."""
    common = registers(driver)
    common.write("queue_select", select)
    for offset in range(0x18, 0x38 - size + 1):
        common.raw_write(offset, size, (1 << 8 * size) - 1)
        common.raw_read(offset, size)
    values = {name: common.read(name) for name in COMMON if name.startswith("queue_") and name != "queue_select"}
    assert values.pop("queue_msix_vector") == NO_VECTOR
    for name in ("queue_desc", "queue_driver", "queue_device"):
        assert values.pop(name) & 0xFFFF_FFFF in (0, 0xFFFF_FFFF)  # a 64-bit read is no natural access
        assert common.raw_read(COMMON[name][0], 4) == 0
    assert set(values.values()) == {0}


@pytest.mark.parametrize("size", [0, 3, 48, 128, 0x8000, 0xFFFF])
def test_row_31_queue_size_that_is_no_power_of_two_or_too_large_is_ignored(driver: VirtioDriver, size: int) -> None:
    """Anchor 31: a size above the maximum was accepted."""
    driver.registers.queue_size(0)
    driver.registers.write("queue_size", size)
    assert driver.registers.read("queue_size") == 64


def test_row_60_smaller_queue_size_works_and_does_not_survive_reset(driver: VirtioDriver) -> None:
    """Anchor 60."""
    driver.negotiate()
    driver.setup_queue(0, size=4)
    driver.driver_ok()
    assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"
    driver.reset()
    assert driver.registers.queue_size(0) == 64


def test_address_halves_are_independent(driver: VirtioDriver) -> None:
    common = registers(driver)
    common.write("queue_select", 1)
    for offset in (0x20, 0x28, 0x30):
        common.raw_write(offset + 4, 4, 0x1234)
        common.raw_write(offset, 4, 0x5678_0000)
        assert common.raw_read(offset, 4) | common.raw_read(offset + 4, 4) << 32 == 0x1234_5678_0000
        common.raw_write(offset, 8, 0xAAAA_0000_BBBB_0000)
        assert common.raw_read(offset, 8) == 0xAAAA_0000_BBBB_0000


FROZEN = ("queue_size", "queue_enable", "queue_desc", "queue_driver", "queue_device")


@pytest.mark.parametrize("order", list(itertools.permutations(FROZEN, 3)))
def test_row_40_queue_registers_do_not_change_once_the_device_runs(
    driver: VirtioDriver, order: tuple[str, ...]
) -> None:
    """Anchor 40, CVE-2026-5747: queue registers writable after activation."""
    driver.start()
    before = dump(driver)
    for index in (0, 1):
        driver.registers.write("queue_select", index)
        for name in order:
            driver.registers.write(name, 8)
            driver.registers.write(name, 0)
    assert {k: v for k, v in dump(driver).items() if k != "queue_select"} == before
    assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


def test_row_40_enabled_queue_keeps_its_addresses_before_driver_ok(driver: VirtioDriver) -> None:
    driver.negotiate()
    driver.setup_queue(0)
    before = dump(driver)
    driver.registers.write("queue_select", 0)
    for name in FROZEN:
        driver.registers.write(name, 0)
    assert dump(driver) == before


@pytest.mark.parametrize("value", [0, 2, 0xFFFF])
def test_only_one_enables_a_queue(driver: VirtioDriver, value: int) -> None:
    driver.registers.queue_size(0)
    driver.registers.write("queue_enable", value)
    assert driver.registers.read("queue_enable") == 0


@pytest.mark.parametrize("vector", [3, 0x7FF, 0x7FFF, 0xFFFE, NO_VECTOR])
def test_row_43_vector_out_of_range_reads_back_no_vector_and_never_fires(
    machine: SimMachine, driver: VirtioDriver, vector: int
) -> None:
    """Anchor 43: vector past the table kept and used."""
    driver.start()
    assert driver.registers.map_vector(None, vector) == NO_VECTOR
    assert driver.registers.map_vector(0, vector) == NO_VECTOR
    driver.queue(0).transfer([b"ab"], [2])
    device_of(machine).config_changed()
    machine.settle()
    assert not machine.interrupts
    assert not driver.line


def test_every_event_maps_to_every_vector(driver: VirtioDriver) -> None:
    driver.start()
    for vector in range(3):
        for event in (None, 0, 1):
            assert driver.registers.map_vector(event, vector) == vector
        before = driver.interrupts(vector)
        driver.queue(1).transfer([b"a"], [1])
        assert driver.interrupts(vector) == before + 1


def test_row_58_registers_equal_power_on_after_reset(driver: VirtioDriver) -> None:
    """Anchor 58: reset left old configuration in the transport."""
    before = dump(driver)
    driver.start()
    driver.queue(0).transfer([b"abc"], [3])
    assert dump(driver) != before
    driver.reset()
    assert dump(driver) == before


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_row_42_row_49_row_50_every_access_of_every_width_is_harmless(
    machine: SimMachine, driver: VirtioDriver, size: int
) -> None:
    """Anchors 42, 49 and 50: odd offsets and widths, also across the ends of structures."""
    for base in (0x0000, 0x1000, 0x2000, 0x3000):
        for offset in (*range(64), 0x1000 - size, 0xFFF):
            if base + offset + size <= 0x4000:
                driver.function.bar_write(4, base + offset, size, 0)
                driver.function.bar_read(4, base + offset, size)
    assert machine.dispatch.errors == 0


@pytest.mark.parametrize(("offset", "size"), [(0x14, 2), (0x14, 4), (0x18, 4), (0x16, 1), (0x00, 2), (0x38, 4)])
def test_access_of_another_width_reads_all_ones(driver: VirtioDriver, offset: int, size: int) -> None:
    assert registers(driver).raw_read(offset, size) == (1 << 8 * size) - 1
