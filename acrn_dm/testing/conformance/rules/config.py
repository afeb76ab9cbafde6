"""The device-specific configuration space (2.5) and the news of its changes."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import ACKNOWLEDGE, DRIVER, NEEDS_RESET, VirtioDriver

WIDTHS = (1, 2, 4)
BEHIND = 16  # bytes behind the end that are looked at


def _size(bench: Bench) -> int:
    if bench.config_size == 0:
        raise NotApplicable("the device has no configuration space")
    return bench.config_size


def _bytes(driver: VirtioDriver, size: int) -> bytes:
    return bytes(driver.registers.read_config(at, 1) for at in range(size))


@rule("config.read_before_features_ok", "config.read_conditional_if_offered")
def every_field_can_be_read_before_features_ok(bench: Bench) -> None:
    """2.5.2, 2.5.3: those that depend on a feature, too, as soon as it is offered."""
    size, driver = _size(bench), bench.driver()
    driver.reset()
    driver.status = ACKNOWLEDGE | DRIVER
    early = _bytes(driver, size)
    bench.restart(driver, bench.offered)
    late = _bytes(driver, size)
    hidden = [at for at in range(size) if not early[at] and late[at]]
    assert not hidden, (
        f"bytes {hidden} of the configuration read as zero before FEATURES_OK: {early.hex()} {late.hex()}"
    )
    assert not driver.status & NEEDS_RESET, "reading the configuration broke the device"


@rule("d.cfg.le", over=("transport",))
def wide_fields_are_little_endian(bench: Bench) -> None:
    """2.5.1: what a wide read shows is what single bytes show."""
    size, driver = _size(bench), bench.driver()
    single = _bytes(driver, size)
    for width in WIDTHS[1:]:
        for at in range(0, size - width + 1, width):
            read = driver.registers.read_config(at, width)
            expected = int.from_bytes(single[at : at + width], "little")
            assert read == expected, f"offset {at}: {width} bytes read {read:#x}, its bytes {expected:#x}"


@rule("pci.legacy.any_width", transport="legacy")
def legacy_configuration_can_be_read_at_any_width_and_offset(bench: Bench) -> None:
    """4.1.4.8: also across fields."""
    size, driver = _size(bench), bench.driver()
    single = _bytes(driver, size)
    for width in WIDTHS:
        for at in range(size - width + 1):
            read = driver.registers.read_config(at, width)
            expected = int.from_bytes(single[at : at + width], "little")
            assert read == expected, f"offset {at}: {width} bytes read {read:#x}, its bytes {expected:#x}"


@rule("dm.config_length")
def read_config_returns_what_was_asked_for(bench: Bench) -> None:
    """The transport cuts what the driver wants out of it; a short answer would read as zeroes."""
    size, device = _size(bench), bench.device
    with bench.pci.lock:
        whole = device.read_config(0, size)
        assert len(whole) == size, f"read_config(0, {size}) returned {len(whole)} bytes"
        for width in (1, 2, 4, 8):
            for at in range(size - width + 1):
                part = device.read_config(at, width)
                assert part == whole[at : at + width], f"read_config({at}, {width}) is {part!r}, not of {whole!r}"


@rule("dm.config_past_end", over=("transport",))
def configuration_is_zero_behind_its_end(bench: Bench) -> None:
    """Of the modern structure; the legacy one ends with its BAR."""
    size, driver = _size(bench), bench.driver()
    if bench.setup.legacy:
        bar = bench.function.bars[0].size - 24  # its size is a power of two
        behind = range(size, min(size + BEHIND, bar - 3))
    else:
        behind = range(size, size + BEHIND)
    for _ in range(2):
        for width in WIDTHS:
            for at in behind:
                assert driver.registers.read_config(at, width) == 0, f"the configuration ends at {size}, not at {at}"
        driver = bench.start()


@rule("dm.config_write", over=("transport",))
def writing_the_configuration_does_no_harm(bench: Bench) -> None:
    """Any value anywhere: ignored or taken; a reset brings the device back."""
    size, driver = _size(bench), bench.start()
    for value in (0xFFFF_FFFF, 0, 0x5A5A_5A5A):
        for width in WIDTHS:
            for at in range(size + (0 if bench.setup.legacy else 8)):
                driver.registers.write_config(at, width, value & ((1 << 8 * width) - 1))
    bench.machine.settle()
    bench.restart(driver)
    assert not driver.status & NEEDS_RESET, "the device is not usable after a reset"
    bench.exchange_all(driver)


@rule("legacy.init.config_write_early", transport="legacy")
def legacy_driver_writes_the_configuration_first_of_all(bench: Bench) -> None:
    """3.1.2: what a write does later without any feature it does before features are read, too."""
    size = _size(bench)
    early = bench.driver()
    taken_early = _taken(early, size)
    assert not early.status & NEEDS_RESET
    bench.machine.reset()
    late = bench.start(0)
    lost = _taken(late, size) - taken_early
    assert not lost, f"writes to bytes {sorted(lost)} work after DRIVER_OK, but not before the feature bits"


def _taken(driver: VirtioDriver, size: int) -> set[int]:
    """Write other values to all bytes; those that took them."""
    taken = set()
    for at in range(size):
        other = driver.registers.read_config(at, 1) ^ 0xFF
        driver.registers.write_config(at, 1, other)
        if driver.registers.read_config(at, 1) == other:
            taken.add(at)
    return taken


@rule("d.cfg.generation", "pci.common.config_generation")
def generation_changes_with_the_configuration(bench: Bench) -> None:
    """4.1.4.3.1: a driver that reads in between never finds one generation with two configurations."""
    _size(bench)
    driver = bench.start()
    for _ in range(3):
        before = bench.modern.read("config_generation")
        driver.read_config(0, 1)
        bench.device.config_changed()
        bench.machine.settle()
        assert bench.modern.read("config_generation") != before, "the generation stands still across a change"


@rule("d.cfg.change_notify", over=("interrupts", "transport"))
def driver_hears_of_a_changed_configuration(bench: Bench) -> None:
    """2.3, 3.2.3."""
    driver = bench.start()
    bench.device.config_changed()
    bench.machine.settle()
    assert bench.notified(driver), "no interrupt for a configuration change"


@rule("pci.layout.split64")
def halves_of_64_bit_fields_are_independent(bench: Bench) -> None:
    """4.1.3.1: either half first, and each read alone."""
    registers = bench.modern
    for offset in (0x20, 0x28, 0x30):
        for order in ((0, 4), (4, 0)):
            bench.driver().negotiate(bench.features)
            registers.write("queue_select", 0)
            for at in order:
                registers.raw_write(offset + at, 4, 0x1000_0000 + 0x1000 * at)
            halves = [registers.raw_read(offset + at, 4) for at in (0, 4)]
            assert halves == [0x1000_0000, 0x1000_4000], f"halves of {offset:#x} read {halves}"
            registers.raw_write(offset, 4, 0x2000_0000)
            assert registers.raw_read(offset + 4, 4) == 0x1000_4000, (
                f"the high half of {offset:#x} changed with the low"
            )
