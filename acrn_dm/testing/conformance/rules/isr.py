"""The ISR status and the pin (4.1.4.5, 4.1.5.3, 4.1.5.4), and the legacy registers (4.1.4.8)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import ACKNOWLEDGE, DRIVER, FEATURES_OK, NEEDS_RESET, VirtioDriver
from acrn_dm.testing.register_access import LEGACY

QUEUE, CONFIG = 1, 2
PLACES = ("device_features", "driver_features", "queue_address", "queue_size", "queue_select", "device_status")


def _use(bench: Bench, driver: VirtioDriver) -> None:
    queue, shape = bench.answering(driver)[0]
    bench.exchange(queue, shape)


@rule("pci.isr.queue_bit", "d.pci.intx_queue", interrupts="intx", over=("transport",))
def used_buffers_set_bit_0_and_the_pin(bench: Bench) -> None:
    """4.1.4.5.1, 4.1.5.3."""
    driver = bench.start()
    _use(bench, driver)
    assert driver.line, "no level on the pin for a used buffer"
    assert driver.registers.read_isr() & QUEUE, "ISR bit 0 is clear"


@rule("pci.isr.config_bit", "d.pci.intx_config", interrupts="intx", over=("transport",))
def configuration_changes_set_bit_1_and_the_pin(bench: Bench) -> None:
    """4.1.4.5.1, 4.1.5.4."""
    driver = bench.start()
    bench.device.config_changed()
    bench.machine.settle()
    assert driver.line, "no level on the pin for a configuration change"
    assert driver.registers.read_isr() & CONFIG, "ISR bit 1 is clear"


@rule("pci.isr.read_clears", "d.pci.isr_deassert", interrupts="intx", over=("transport",))
def reading_the_isr_clears_it_and_the_pin(bench: Bench) -> None:
    """4.1.4.5.1."""
    driver = bench.start()
    _use(bench, driver)
    bench.device.config_changed()
    bench.machine.settle()
    assert driver.registers.read_isr() == QUEUE | CONFIG
    assert driver.registers.read_isr() == 0, "the second read is not 0"
    assert not driver.line, "the pin stays asserted"


@rule("pci.isr.pci_status", interrupts="intx", over=("transport",))
def interrupt_status_is_the_or_of_the_isr(bench: Bench) -> None:
    """4.1.4.5.1: in the PCI Status register."""
    driver = bench.start()
    assert not bench.function.interrupt_status
    bench.device.config_changed()
    bench.machine.settle()
    assert bench.function.interrupt_status, "Interrupt Status is clear with an ISR bit set"
    driver.registers.read_isr()
    assert not bench.function.interrupt_status, "Interrupt Status is set with ISR 0"


@rule("d.pci.isr_bits", over=("interrupts", "transport"))
def isr_has_two_bits(bench: Bench) -> None:
    """4.1.4.5."""
    driver = bench.start()
    bench.exchange_all(driver)
    bench.device.config_changed()
    bench.machine.settle()
    isr = driver.registers.read_isr()
    assert not isr & ~(QUEUE | CONFIG), f"ISR {isr:#x}"


# Legacy


@rule("pci.legacy.bar0", "pci.legacy.io_space", transport="legacy")
def legacy_registers_are_in_bar_0_in_io_space(bench: Bench) -> None:
    """4.1.4.8."""
    bar = bench.function.bars[0]
    assert bar.io, "BAR 0 is in memory space"
    assert bar.size >= 24 + bench.config_size, f"BAR 0 has {bar.size} bytes"


@rule("d.pci.legacy.regs", transport="legacy")
def legacy_registers_are_where_drivers_look(bench: Bench) -> None:
    """4.1.4.8: at their width; those for reading ignore writes."""
    driver = bench.driver()
    read, write = driver.registers.read, driver.registers.write
    driver.reset()
    values = {name: read(name) for name in PLACES}
    assert values["device_features"] == bench.offered & 0xFFFF_FFFF
    for name in ("device_features", "queue_size"):
        write(name, values[name] ^ 1 << 3)
        assert read(name) == values[name], f"{name} ({LEGACY[name][0]:#x}) changed by a write"
    write("queue_select", 0x55)
    assert read("queue_select") == 0x55
    write("driver_features", bench.features)
    assert read("driver_features") == bench.features, "driver features read back otherwise"
    driver.status = ACKNOWLEDGE | DRIVER
    assert driver.status == ACKNOWLEDGE | DRIVER, f"the status reads {driver.status:#x}"


@rule("pci.legacy.devcfg_offset", "d.pci.legacy.msix_regs", transport="legacy", interrupts="msix")
def legacy_configuration_moves_with_msix(bench: Bench) -> None:
    """4.1.4.8: from 20 to 24, where the vectors were not."""
    driver = bench.driver()
    size = bench.config_size
    shown = []
    for on, start in ((False, 20), (True, 24), (False, 20)):
        bench.function.enable_msix(on)
        shown.append(bytes(bench.function.bar_read(0, start + at, 1) for at in range(size)))
        if on:
            driver.registers.write("config_msix_vector", 1)
            assert driver.registers.read("config_msix_vector") == 1
            assert bench.function.bar_read(0, 0x14, 2) == 1, "no vector register at 20 with MSI-X"
    assert shown[0] == shown[1] == shown[2], f"at 20, 24 and 20: {[part.hex() for part in shown]}"
    modern = bytes(bench.modern.read_config(at, 1) for at in range(size)) if size else b""
    assert shown[0] == modern, f"the legacy configuration is {shown[0].hex()}, the modern one {modern.hex()}"


@rule("legacy.detect_driver", transport="legacy")
def driver_without_version_1_is_a_legacy_one(bench: Bench) -> None:
    """2.2.3: nobody asks it for FEATURES_OK, and its rings are where legacy ones are."""
    driver = bench.start()
    assert not driver.status & FEATURES_OK
    bench.exchange_all(driver)
    modern = bench.machine.driver(bench.function.slot, msix=False)
    modern.start(queues=bench.queues(modern))
    bench.exchange_all(modern)
    driver = bench.restart(driver)
    bench.exchange_all(driver)


@rule("legacy.init.use_before_driver_ok", transport="legacy")
def legacy_driver_uses_queues_before_driver_ok(bench: Bench) -> None:
    """3.1.2."""
    driver = bench.driver()
    driver.negotiate(bench.features)
    for index in bench.queues(driver):
        driver.setup_queue(index)
    for queue, shape in bench.answering(driver):
        bench.exchange(queue, shape)
    driver.driver_ok()
    bench.machine.settle()
    for queue, shape in bench.answering(driver):
        bench.exchange(queue, shape)
    assert not driver.status & NEEDS_RESET
