"""The common configuration structure (4.1.4.3)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import ACKNOWLEDGE, DRIVER, VERSION_1
from acrn_dm.testing.register_access import COMMON, NO_VECTOR
from acrn_dm.virtio import features

SELECTS = (0, 1, 2, 3, 4, 0x7FFF_FFFF, 0xFFFF_FFFF)
WORD = 0xFFFF_FFFF
RING_REGISTERS = ((0x18, 2), (0x1C, 2), *((at, 4) for at in range(0x20, 0x38, 4)))  # size, enable, addresses
READ_ONLY = ("device_feature", "num_queues", "config_generation", "queue_notify_off")


@rule("pci.common.device_feature")
def device_feature_shows_every_word(bench: Bench) -> None:
    """4.1.4.3.1: for any select, 0 where nothing is offered."""
    registers, offered = bench.modern, bench.modern.offered()
    for select in SELECTS:
        registers.write("device_feature_select", select)
        assert registers.read("device_feature_select") == select
        expected = offered >> 32 * select & WORD if select < 4 else 0
        assert registers.read("device_feature") == expected, (
            f"word {select:#x} reads {registers.read('device_feature'):#x}"
        )
    for _ in range(2):
        assert registers.offered() == offered, "the offer changed"


@rule("pci.common.driver_feature")
def driver_feature_reads_back(bench: Bench) -> None:
    """4.1.4.3.1: valid bits, word by word."""
    driver, registers = bench.driver(), bench.modern
    driver.reset()
    driver.status = ACKNOWLEDGE | DRIVER
    offered = registers.offered()
    for wanted in (offered, features.prune(bench.device_id, offered & 0xAAAA_AAAA) | VERSION_1, 0):
        registers.accept(wanted)
        for select in SELECTS:
            registers.write("driver_feature_select", select)
            read, expected = registers.read("driver_feature"), (wanted >> 32 * select & WORD if select < 4 else 0)
            assert read == expected, f"word {select:#x}: wrote {expected:#x}, reads {read:#x}"


@rule("pci.common.status_reset", over=("interrupts",))
def writing_0_to_the_status_resets_everything(bench: Bench) -> None:
    """4.1.4.3.1: queues, vectors, accepted features."""
    registers, driver = bench.modern, bench.driver()
    before = _dump(bench)
    for _ in range(3):
        bench.restart(driver)
        bench.exchange_all(driver)
        registers.write("queue_select", 0)
        driver.reset()
        after = _dump(bench)
        changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
        assert not changed, f"differ after a reset: {changed}"
        registers.write("driver_feature_select", 0)
        assert registers.read("driver_feature") == 0, "accepted features are there after a reset"


def _dump(bench: Bench) -> dict[str, int]:
    """Every register but the selectors, whose reset value nobody defines; those of queues for every queue."""
    registers = bench.modern
    left_out = {"config_generation", "device_feature", "driver_feature"}
    names = [n for n in COMMON if not n.startswith("queue_") and "select" not in n and n not in left_out]
    values = {name: registers.read(name) for name in names}
    for index in range(registers.read("num_queues")):
        registers.write("queue_select", index)
        own = [name for name in COMMON if name.startswith("queue_") and name != "queue_select"]
        values |= {f"{name} {index}": registers.read(name) for name in own}
    return values


@rule("pci.common.queue_enable.reset0")
def queues_are_disabled_after_a_reset(bench: Bench) -> None:
    """4.1.4.3.1."""
    driver, registers = bench.start(), bench.modern
    enabled = list(driver.queues)
    for index in enabled:
        registers.write("queue_select", index)
        assert registers.read("queue_enable") == 1, f"queue {index} is enabled and reads as disabled"
    driver.reset()
    for index in enabled:
        registers.write("queue_select", index)
        assert registers.read("queue_enable") == 0, f"queue {index} is enabled after a reset"


@rule("pci.common.queue_size.unavailable", "d.pci.num_queues", "d.vq.max")
def queues_that_do_not_exist_have_size_0(bench: Bench) -> None:
    """4.1.4.3.1: from num_queues up to the highest index there is."""
    registers = bench.modern
    count = registers.read("num_queues")
    assert all(registers.queue_size(index) for index in range(count)), "a queue below num_queues has size 0"
    for index in (count, count + 1, 0x7FFF, 0xFFFF):
        assert registers.queue_size(index) == 0, f"queue {index} of {count} has a size"
        registers.write("queue_enable", 1)
        assert registers.read("queue_enable") == 0, f"queue {index} of {count} can be enabled"


@rule("pci.common.queue_size.pow2", ring="split")
def queue_sizes_are_powers_of_2(bench: Bench) -> None:
    """4.1.4.3.1."""
    registers = bench.modern
    for index in range(registers.read("num_queues")):
        size = registers.queue_size(index)
        assert 0 < size <= 32768, f"queue {index} has {size} entries"
        assert size & (size - 1) == 0, f"queue {index} has {size} entries"
        for odd in (3, size - 1, size + 1, 2 * size, 0):
            registers.write("queue_size", odd)
            taken = registers.read("queue_size")
            assert taken in [1 << n for n in range(size.bit_length())], f"queue {index} of {size} entries takes {odd}"


@rule("dm.queue_frozen")
def queue_that_runs_keeps_its_ring(bench: Bench) -> None:
    """Where a ring is and how long can't be changed under the device, in whatever order a driver tries (CVE-2026-5747
    of another device model); a queue that is enabled stays so.
    """
    driver, registers = bench.start(), bench.modern
    for index in driver.queues:
        registers.write("queue_select", index)
        before = [registers.raw_read(at, size) for at, size in RING_REGISTERS]
        for at, size in (*RING_REGISTERS, *reversed(RING_REGISTERS)):
            registers.raw_write(at, size, 0)
            registers.raw_write(at, size, 0x40)
        after = [registers.raw_read(at, size) for at, size in RING_REGISTERS]
        assert after == before, f"queue {index} runs, and its registers were {before}, are {after}"
    bench.exchange_all(driver)


@rule("d.pci.queue_size_reset")
def queue_size_is_the_maximum_again_after_a_reset(bench: Bench) -> None:
    """4.1.4.3."""
    driver, registers = bench.driver(), bench.modern
    for index in range(registers.read("num_queues")):
        driver.negotiate(bench.features)
        maximum = registers.queue_size(index)
        registers.write("queue_size", max(1, maximum // 2))
        assert registers.queue_size(index) == max(1, maximum // 2), f"queue {index} takes no smaller size"
        driver.reset()
        assert registers.queue_size(index) == maximum, f"queue {index}: the size of the last driver is still there"


@rule("d.pci.queue_select_ctx")
def queue_registers_follow_queue_select(bench: Bench) -> None:
    """4.1.4.3: what is written of one queue is not read of another."""
    driver, registers = bench.driver(), bench.modern
    driver.negotiate(bench.features)
    count = min(registers.read("num_queues"), 8)
    for index in range(count):
        registers.write("queue_select", index)
        registers.write("queue_desc", 0x10_0000 + 0x1000 * index)
    for index in (*reversed(range(count)), *range(count)):
        registers.write("queue_select", index)
        read = sum(registers.raw_read(0x20 + at, 4) << 8 * at for at in (0, 4))
        assert read == 0x10_0000 + 0x1000 * index, f"queue_desc of queue {index} reads {read:#x}"
    registers.write("queue_select", 0xFFFF)
    registers.write("queue_desc", 0xDEAD_0000)
    registers.write("queue_select", 0)
    assert registers.raw_read(0x20, 4) == 0x10_0000, "a queue that does not exist wrote to queue 0"


@rule("d.pci.device_feature_ro")
def registers_for_reading_ignore_writes(bench: Bench) -> None:
    """4.1.4.3."""
    registers = bench.modern
    registers.write("queue_select", 0)
    for name in READ_ONLY:
        before = registers.read(name)
        registers.write(name, before ^ 0xFF)
        assert registers.read(name) == before, f"{name} was {before:#x}, a write made it {registers.read(name):#x}"


@rule("pci.msix.reset_unmapped")
def vectors_are_unmapped_after_a_reset(bench: Bench) -> None:
    """4.1.5.1.2.1."""
    driver, registers = bench.start(), bench.modern
    driver.reset()
    assert registers.read("config_msix_vector") == NO_VECTOR, "the configuration vector is mapped after a reset"
    for index in range(registers.read("num_queues")):
        registers.write("queue_select", index)
        assert registers.read("queue_msix_vector") == NO_VECTOR, f"queue {index} has a vector after a reset"
