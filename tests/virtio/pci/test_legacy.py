"""The legacy interface in BAR 0 (rows legacy.*, pci.legacy.*, split.legacy.*; reference 3.3)."""

from collections.abc import Iterator

import pytest

from acrn_dm.testing import RingLayout, SimMachine, VirtioDriver
from tests.virtio.parts import SLOT, Echo, device_of, machine_with

ANY_LAYOUT = 1 << 27


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with machine_with() as made:
        yield made


@pytest.fixture
def driver(machine: SimMachine) -> VirtioDriver:
    return machine.driver_legacy(SLOT)


def test_offers_the_low_word_and_any_layout(driver: VirtioDriver) -> None:
    assert driver.registers.offered() == Echo.offers | 1 << 28 | 1 << 29 | ANY_LAYOUT


def test_device_starts_without_features_ok_and_without_version_1(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.start()
    assert driver.status == 7
    assert device_of(machine).started_with == driver.features


def test_features_ok_written_through_the_legacy_registers_is_ignored(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = 1 | 2 | 8
    assert driver.status == 3


def test_feature_with_missing_prerequisite_is_dropped(machine: SimMachine) -> None:
    tso4, csum = 1 << 7, 1 << 1
    kind = type("Net", (Echo,), {"device_id": 1, "offers": tso4 | csum})
    with machine_with(kind) as other:
        driver = other.driver_legacy(SLOT)
        driver.start(tso4)
        assert device_of(other).started_with == 0


def test_modern_features_of_an_earlier_driver_are_forgotten(machine: SimMachine, driver: VirtioDriver) -> None:
    machine.driver(SLOT).start()
    driver.start()
    assert device_of(machine).started_with < 1 << 32


@pytest.mark.parametrize("size", [16, 64])
def test_ring_with_padding_to_the_page_works(driver: VirtioDriver, size: int) -> None:
    driver.start(queues=[0 if size == 64 else 1])
    queue = driver.queue(0 if size == 64 else 1)
    assert queue.ring.layout.used % 4096 == 0
    for i in range(3 * size):
        assert queue.transfer([bytes([i % 251, 1])], [2]).data == bytes([1, i % 251])


def test_queue_size_is_read_only(driver: VirtioDriver) -> None:
    driver.registers.queue_size(0)
    driver.registers.write("queue_size", 8)
    assert driver.registers.read("queue_size") == 64


def test_queue_size_of_an_invalid_selector_is_zero(driver: VirtioDriver) -> None:
    assert driver.registers.queue_size(2) == 0
    driver.registers.write("queue_address", 5)
    assert driver.registers.read("queue_address") == 0


def test_row_51_pfn_reads_back_and_zero_disables_the_queue(machine: SimMachine, driver: VirtioDriver) -> None:
    """Anchor 51, and a bug of the original: PFN 0 mapped guest address 0 and marked the queue ready."""
    driver.negotiate()
    driver.setup_queue(0)
    driver.setup_queue(1)
    driver.registers.write("queue_select", 0)
    assert driver.registers.read("queue_address") == driver.queue(0).ring.layout.desc // 4096
    driver.registers.write("queue_address", 0)
    assert driver.registers.read("queue_address") == 0
    driver.driver_ok()
    machine.settle()
    assert [q.index for q in device_of(machine).queues] == [1]


def test_row_51_pfn_zero_in_any_order_is_harmless(machine: SimMachine, driver: VirtioDriver) -> None:
    for order in ((0, 1), (1, 0)):
        driver.reset()
        for index in order:
            driver.registers.queue_size(index)
            for pfn in (0, 0xFFFF_FFFF, 0):
                driver.registers.write("queue_address", pfn)
        driver.driver_ok()
        machine.settle()
    assert machine.dispatch.errors == 0


def test_pfn_zero_of_a_running_queue_resets_the_device(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.start()
    driver.registers.write("queue_select", 0)
    driver.registers.write("queue_address", 0)
    assert driver.status == 0
    assert device_of(machine).calls == ["start", "stop"]


def test_pfn_outside_ram_needs_a_reset(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.negotiate()
    driver.registers.queue_size(0)
    driver.registers.write("queue_address", 0xFFFF_FFFF)
    driver.driver_ok()
    assert driver.status & 64


def test_device_can_be_used_before_driver_ok(machine: SimMachine, driver: VirtioDriver) -> None:
    """Linux before 3.18 reads the partition table while it probes."""
    driver.negotiate()
    driver.setup_queue(0)
    assert driver.queue(0).transfer([b"early"], [5]).data == b"ylrae"
    assert not driver.status & 4
    driver.driver_ok()
    assert driver.queue(0).transfer([b"late"], [4]).data == b"etal"
    assert device_of(machine).calls == ["start"]


@pytest.mark.parametrize("kicked", [True, False], ids=["kicked before", "at DRIVER_OK"])
@pytest.mark.parametrize("backend", ["vbs-u", "vhost"])
def test_legacy_init_use_before_driver_ok(kicked: bool, backend: str) -> None:
    """legacy.init.use_before_driver_ok: a queue that is set up after another one was used works, too, from its first
    kick or from DRIVER_OK on, and the first goes on where it was.
    """
    with machine_with(backend=backend) as machine:
        driver = machine.driver_legacy(SLOT)
        driver.negotiate()
        driver.setup_queue(0)
        for text in (b"early", b"twice"):
            assert driver.queue(0).transfer([text], [5]).data == text[::-1]
        driver.setup_queue(1)
        if kicked:
            assert driver.queue(1).transfer([b"other"], [5]).data == b"rehto"
        driver.driver_ok()
        assert not driver.status & 64
        for index in (1, 0, 1):
            assert driver.queue(index).transfer([b"late"], [4]).data == b"etal"
        assert device_of(machine).calls == ["start", "stop", "start"]
        assert [q.index for q in device_of(machine).queues] == ([0, 1] if backend == "vbs-u" else [])


def test_legacy_queue_set_up_early_is_served_from_driver_ok_without_a_kick(
    machine: SimMachine, driver: VirtioDriver
) -> None:
    driver.negotiate()
    driver.setup_queue(0)
    driver.queue(0).transfer([b"early"], [5])
    queue = driver.setup_queue(1)
    queue.send([b"waits"], [5])
    machine.settle()
    assert queue.completed() == []
    driver.driver_ok()
    machine.settle()
    assert [done.data for done in queue.completed()] == [b"stiaw"]


def test_queue_in_use_before_driver_ok_keeps_its_place_and_gives_it_up_by_a_reset_only(
    machine: SimMachine, driver: VirtioDriver
) -> None:
    driver.negotiate()
    driver.setup_queue(0)
    driver.queue(0).transfer([b"early"], [5])
    before = driver.registers.read("queue_address")
    driver.registers.write("queue_address", before + 5)
    assert driver.registers.read("queue_address") == before
    driver.registers.write("queue_select", 1)
    for pfn in (7, 0):  # one that does not run yet may come and go
        driver.registers.write("queue_address", pfn)
        assert driver.registers.read("queue_address") == pfn
    assert driver.status == 3
    driver.registers.write("queue_select", 0)
    driver.registers.write("queue_address", 0)
    assert driver.status == 0


def test_queue_set_up_late_at_an_impossible_place_asks_for_a_reset(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.negotiate()
    driver.setup_queue(0)
    driver.queue(0).transfer([b"early"], [5])
    driver.registers.write("queue_select", 1)
    driver.registers.write("queue_address", 0xFFFF_FFFF)
    driver.registers.notify(1)
    assert driver.status & 64
    assert len(machine.failures) == 1
    driver.start()
    assert driver.queue(1).transfer([b"again"], [5]).data == b"niaga"


@pytest.mark.parametrize("status", [0, 1 | 2 | 128, 1 | 2 | 64])
def test_kick_does_not_start_a_device_that_is_not_acknowledged_or_given_up(
    machine: SimMachine, driver: VirtioDriver, status: int
) -> None:
    driver.reset()
    driver.status = status & ~64
    if status & 64:
        device_of(machine).fail(RuntimeError("broken"))
        machine.settle()
    driver.setup_queue(0)
    driver.registers.notify(0)
    machine.settle()
    assert device_of(machine).calls == []


def test_legacy_kick_does_not_start_a_modern_driver(machine: SimMachine, driver: VirtioDriver) -> None:
    modern = machine.driver(SLOT)
    modern.negotiate()
    modern.setup_queue(0)
    driver.registers.notify(0)
    machine.settle()
    assert device_of(machine).calls == []


def test_early_start_that_fails_asks_for_a_reset_once(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.negotiate()
    driver.registers.map_vector(None, 0)
    driver.registers.queue_size(0)
    driver.registers.write("queue_address", 0xFFFF_FFFF)
    for _ in range(3):
        driver.registers.notify(0)
    assert driver.status & 64
    assert len(machine.failures) == driver.config_interrupts == 1


def test_modern_device_is_not_used_before_driver_ok(machine: SimMachine) -> None:
    """Rows status.no_consume_before_driver_ok and status.no_used_notify_before_driver_ok."""
    driver = machine.driver(SLOT)
    driver.negotiate()
    queue = driver.setup_queue(0)
    queue.send([b"early"], [5])
    queue.kick(force=True)
    machine.settle()
    assert queue.completed() == []
    assert not machine.interrupts
    driver.driver_ok()
    machine.settle()
    assert [c.data for c in queue.completed()] == [b"ylrae"]  # looked at without another kick


def test_configuration_moves_with_msix(machine: SimMachine, driver: VirtioDriver) -> None:
    function = driver.function
    assert function.bar_read(0, 24, 4) == 0x04030201
    function.enable_msix(False)
    assert function.bar_read(0, 20, 4) == 0x04030201
    function.enable_msix()
    assert function.bar_read(0, 20, 2) == 0xFFFF  # config_msix_vector again


@pytest.mark.parametrize("size", [1, 2, 4])
def test_configuration_reads_the_same_in_any_width(driver: VirtioDriver, size: int) -> None:
    got = b"".join(
        driver.registers.read_config(at, size).to_bytes(size, "little") for at in range(0, len(Echo.config), size)
    )
    assert got == Echo.config


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (4, 2), (8, 1), (0x10, 4), (0x12, 2), (0x13, 2)])
def test_header_access_of_another_width_reads_all_ones_and_writes_nothing(
    driver: VirtioDriver, offset: int, size: int
) -> None:
    assert driver.function.bar_read(0, offset, size) == (1 << 8 * size) - 1
    before = driver.registers.read("driver_features"), driver.status
    driver.function.bar_write(0, offset, size, 0)
    assert (driver.registers.read("driver_features"), driver.status) == before


def test_notify_register_reads_zero(driver: VirtioDriver) -> None:
    assert driver.registers.read("queue_notify") == 0


@pytest.mark.parametrize("queue", [2, 0x7FFF, 0xFFFF])
def test_row_48_notify_of_a_queue_that_does_not_exist_is_ignored(
    machine: SimMachine, driver: VirtioDriver, queue: int
) -> None:
    """Anchor 48: QUEUE_NOTIFY beyond the queues."""
    driver.start()
    driver.registers.notify(queue)
    machine.settle()
    assert machine.dispatch.errors == 0
    assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


def test_row_63_line_stays_asserted_until_isr_is_read_and_bits_are_ored(machine: SimMachine) -> None:
    """Anchor 63: INTx as an edge, not deasserted, ISR bits lost."""
    driver = machine.driver_legacy(SLOT, msix=False)
    driver.start()
    driver.queue(0).transfer([b"a"], [1])
    device_of(machine).config_changed()
    machine.settle()
    assert driver.line
    assert driver.function.interrupt_status
    assert driver.registers.read_isr() == 3
    assert not driver.line
    assert not driver.function.interrupt_status
    assert driver.registers.read_isr() == 0


def test_isr_of_a_configuration_change_under_msix_stays_off_the_line(machine: SimMachine) -> None:
    driver = machine.driver_legacy(SLOT)
    driver.start()
    device_of(machine).config_changed()
    machine.settle()
    assert not driver.line
    assert not driver.function.interrupt_status
    driver.function.write(0x04, 2, 0x407)  # INTx disable
    assert not driver.function.interrupt_status
    driver.function.write(0x04, 2, 0x007)
    driver.function.enable_msix(False)  # now the pin shows the ISR byte (4.1.4.5.1)
    assert driver.line
    assert driver.registers.read_isr() == 2
    assert not driver.line


def test_line_is_released_by_reset(machine: SimMachine) -> None:
    driver = machine.driver_legacy(SLOT, msix=False)
    driver.start()
    driver.queue(0).transfer([b"a"], [1])
    driver.reset()
    assert not driver.line


def test_msi_is_sent_for_each_interrupt_and_the_line_stays_quiet() -> None:
    with machine_with(virtio_msi=True) as machine:
        driver = machine.driver_legacy(SLOT)
        driver.function.enable_msi()
        driver.start()
        driver.queue(0).transfer([b"a"], [1])
        driver.queue(1).transfer([b"a"], [1])
        assert sum(machine.interrupts.values()) == 2
        assert not driver.line
        assert driver.registers.read_isr() == 1


def test_ring_layout_is_that_of_the_specification(driver: VirtioDriver) -> None:
    layout = RingLayout.at(0x10_0000, 16, 4096)
    driver.negotiate()
    queue = driver.setup_queue(1)
    base = queue.ring.layout.desc
    assert queue.ring.layout.used - base == layout.used - 0x10_0000 == 4096
