"""Interrupts by MSI-X (4.1.5.1.2, 4.1.5.3, 4.1.5.4), and what of them holds for the other ways."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import CONFIG_VECTOR, DriverQueue, VirtioDriver
from acrn_dm.testing.register_access import NO_VECTOR


def _vectors(bench: Bench) -> list[int]:
    """Some of those there are: the first, the last, and one between."""
    count = bench.function.vectors
    return sorted({0, count // 2, count - 1})


def _fired(bench: Bench, driver: VirtioDriver, before: dict[int, int]) -> list[int]:
    """Vectors that fired since *before*."""
    bench.machine.settle()
    return [v for v in range(bench.function.vectors) if driver.interrupts(v) != before[v]]


def _counts(bench: Bench, driver: VirtioDriver) -> dict[int, int]:
    return {v: driver.interrupts(v) for v in range(bench.function.vectors)}


@rule("pci.msix.map_any", "d.pci.msix_queue", interrupts="msix", over=("transport",))
def queues_interrupt_by_the_vector_they_are_mapped_to(bench: Bench) -> None:
    """4.1.5.3: any of those there are, shared or not."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        for vector in _vectors(bench):
            assert driver.registers.map_vector(queue.index, vector) == vector
            before = _counts(bench, driver)
            bench.exchange(queue, shape)
            fired = _fired(bench, driver, before)
            assert fired == [vector], f"queue {queue.index} mapped to vector {vector}: {fired} fired"


@rule("d.pci.msix_config", interrupts="msix", over=("transport",))
def configuration_changes_interrupt_by_their_vector(bench: Bench) -> None:
    """4.1.5.4."""
    driver = bench.start()
    for vector in _vectors(bench):
        assert driver.registers.map_vector(None, vector) == vector
        before = _counts(bench, driver)
        bench.device.config_changed()
        fired = _fired(bench, driver, before)
        assert fired == [vector], f"configuration changes mapped to vector {vector}: {fired} fired"


@rule("pci.msix.unmap", "pci.msix.readback", interrupts="msix", over=("transport",))
def vectors_read_back_as_they_are_mapped(bench: Bench) -> None:
    """4.1.5.1.2.1: NO_VECTOR once unmapped."""
    driver = bench.start()
    for index in (None, *driver.queues):
        for vector in (*_vectors(bench), NO_VECTOR):
            read = driver.registers.map_vector(index, vector)
            assert read == vector, f"queue {index}: mapped to {vector:#x}, reads {read:#x}"


@rule("pci.msix.no_spurious_fail", interrupts="msix")
def every_vector_can_be_mapped(bench: Bench) -> None:
    """4.1.5.1.2.1."""
    driver = bench.start()
    for vector in range(bench.function.vectors):
        for index in (None, *list(driver.queues)[:4]):
            assert driver.registers.map_vector(index, vector) == vector, f"queue {index} refuses vector {vector}"


@rule("pci.msix.fail_report", interrupts="msix", over=("transport",))
def vectors_that_do_not_exist_read_back_as_none(bench: Bench) -> None:
    """4.1.5.1.2.1."""
    driver = bench.start()
    for index in (None, *driver.queues):
        for vector in (bench.function.vectors, 0x7FF, 0xFFFE):
            read = driver.registers.map_vector(index, vector)
            assert read == NO_VECTOR, f"queue {index}: vector {vector:#x} is not there and reads back as {read:#x}"


@rule("pci.used_notify.no_vector", interrupts="msix", over=("transport",))
def queue_without_a_vector_interrupts_nobody(bench: Bench) -> None:
    """4.1.5.3.1: neither by a message nor by the pin."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        driver.registers.map_vector(queue.index, NO_VECTOR)
        before = _counts(bench, driver)
        bench.exchange(queue, shape)
        fired = _fired(bench, driver, before)
        assert not fired, f"queue {queue.index} has no vector, and {fired} fired"
        assert not driver.line, f"queue {queue.index} has no vector, and the pin is asserted"


@rule("pci.cfg_notify.no_vector", interrupts="msix", over=("transport",))
def configuration_without_a_vector_interrupts_nobody(bench: Bench) -> None:
    """4.1.5.4.1."""
    driver = bench.start()
    driver.registers.map_vector(None, NO_VECTOR)
    before = _counts(bench, driver)
    bench.device.config_changed()
    fired = _fired(bench, driver, before)
    assert not fired, f"configuration changes have no vector, and {fired} fired"
    assert not driver.line, "configuration changes have no vector, and the pin is asserted"


@rule("d.pci.msix_mask", interrupts="msix")
def masked_interrupts_wait_for_the_unmask(bench: Bench) -> None:
    """PCI 3.0, 6.8.3.4: by the entry and by the function; once, however often it was raised."""
    driver, function = bench.start(), bench.function
    for mask in (lambda on: function.mask(CONFIG_VECTOR, on), function.mask_function):
        before = driver.config_interrupts
        mask(True)
        for _ in range(2):
            bench.device.config_changed()
            bench.machine.settle()
        assert driver.config_interrupts == before, "a masked vector fired"
        assert function.pending(CONFIG_VECTOR), "the pending bit of a masked vector is clear"
        mask(False)
        bench.machine.settle()
        assert driver.config_interrupts == before + 1, "no interrupt at the unmask"
        assert not function.pending(CONFIG_VECTOR), "the pending bit stays set"
    for queue, shape in bench.answering(driver):
        _masked_queue(bench, driver, queue, shape)


def _masked_queue(bench: Bench, driver: VirtioDriver, queue: DriverQueue, shape: Shape) -> None:
    vector, function = driver.default_vector(queue.index), bench.function
    before = driver.interrupts(vector)
    function.mask(vector)
    bench.exchange(queue, shape)
    assert driver.interrupts(vector) == before, f"queue {queue.index}: its vector is masked and fired"
    assert function.pending(vector), f"queue {queue.index}: an interrupt is lost while its vector is masked"
    function.mask(vector, False)
    bench.machine.settle()
    assert driver.interrupts(vector) == before + 1, f"queue {queue.index}: no interrupt at the unmask"
