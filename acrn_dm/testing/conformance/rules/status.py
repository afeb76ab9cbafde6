"""The device status field and reset (2.1, 2.4)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.probes import BOTH
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import DRIVER_OK, POISON, VirtioDriver

LATE_S = 0.05  # of the device's time: what a reset has not ended shows up by then


def _before_driver_ok(bench: Bench) -> VirtioDriver:
    """Chains and kicks on every queue, DRIVER_OK clear."""
    driver = bench.driver()
    driver.negotiate(bench.features)
    for index in bench.queues(driver):
        queue = driver.setup_queue(index)
        shape = bench.answers.get(index, BOTH)
        queue.send(shape.out, shape.in_)
        queue.kick(force=True)
    bench.machine.settle()
    return driver


@rule("status.no_consume_before_driver_ok")
def uses_nothing_before_driver_ok(bench: Bench) -> None:
    """2.1.2."""
    driver = _before_driver_ok(bench)
    used = [queue.index for queue in driver.queues.values() if queue.completed()]
    assert not used, f"queues {used} are used before DRIVER_OK"


@rule("status.no_used_notify_before_driver_ok", over=("interrupts",))
def interrupts_nobody_before_driver_ok(bench: Bench) -> None:
    """2.1.2."""
    driver = _before_driver_ok(bench)
    assert not bench.notified(driver), "interrupts before DRIVER_OK"


@rule("d.status.initial0", over=("transport",))
def status_is_zero_at_first_and_after_reset(bench: Bench) -> None:
    """2.1."""
    driver = bench.driver()
    assert driver.status == 0, f"the status is {driver.status:#x} at first"
    bench.restart(driver)
    driver.reset()
    assert driver.status == 0


@rule("reset.status_zero", over=("transport",))
def status_reads_zero_after_a_reset_with_work_under_way(bench: Bench) -> None:
    """2.4.1."""
    driver = bench.start()
    _load(bench, driver)
    driver.reset()
    assert driver.status == 0


@rule("reset.no_notify", over=("interrupts",))
def interrupts_nobody_after_reset(bench: Bench) -> None:
    """2.4.1: neither for chains that were not looked at yet, nor for those under way."""
    driver = bench.start()
    for begun in (False, True):
        bench.restart(driver)
        _load(bench, driver, begun=begun)
        driver.reset()
        bench.notified(driver)
        bench.device.config_changed()
        bench.wait(lambda: False, LATE_S)
        assert not bench.notified(driver), "interrupts after the reset"
        assert driver.registers.read_isr() == 0, "the ISR has a bit set after the reset"


@rule("dm.reset_interrupts", over=("interrupts",))
def reset_takes_back_what_was_not_heard(bench: Bench) -> None:
    """2.4: ISR, pin and pending bits are as at first, whatever the driver left unread."""
    driver = bench.start()
    if driver.function.msix_enabled:
        driver.function.mask_function()
    bench.exchange_all(driver)
    bench.device.config_changed()
    bench.machine.settle()
    driver.reset()
    assert not driver.line, "the pin is asserted after a reset"
    assert not bench.function.interrupt_status, "Interrupt Status is set after a reset"
    assert driver.registers.read_isr() == 0, "the ISR has a bit of before the reset"
    pending = [v for v in range(bench.function.vectors) if bench.function.pending(v)]
    assert not pending, f"vectors {pending} are pending after a reset"


@rule("reset.no_queue_access", over=("transport",))
def touches_no_guest_memory_after_reset(bench: Bench) -> None:
    """2.4.1: rings and buffers belong to the driver again."""
    driver = bench.start()
    for begun in (False, True):
        bench.restart(driver)
        _load(bench, driver, begun=begun)
        driver.reset()
        memory, (base, length) = bench.machine.memory, bench.machine.heap.used_range
        memory.write(base, bytes([POISON]) * length)
        bench.wait(lambda: False, LATE_S)
        assert memory.read(base, length) == bytes([POISON]) * length, "guest memory changed after the reset"
    driver = bench.restart(driver)
    bench.exchange_all(driver)


@rule("d.live_after_driver_ok", over=("transport",))
def buffers_from_before_driver_ok_are_used_after_it(bench: Bench) -> None:
    """3.4: queues live from DRIVER_OK on, none after a reset."""
    driver = bench.driver()
    driver.negotiate(bench.features)
    queues = [driver.setup_queue(index) for index in bench.queues(driver)]
    sent = [
        (q, q.send(bench.answers[q.index].out, bench.answers[q.index].in_)) for q in queues if q.index in bench.answers
    ]
    if not sent:
        raise NotApplicable("no queue returns a chain by itself")
    driver.driver_ok()
    for queue, token in sent:
        queue.kick(force=True)
        came = [done.token for done in bench.collect(queue, 1)]
        assert came == [token], f"queue {queue.index}: a buffer from before DRIVER_OK came back as {came}"
    driver.reset()
    for queue, _ in sent:
        driver.registers.notify(queue.index)
    bench.machine.settle()
    assert not driver.status & DRIVER_OK


def _load(bench: Bench, driver: VirtioDriver, *, begun: bool = False) -> None:
    """Work on every queue, kicked and not waited for; the device has *begun* with it, or not seen it."""
    for queue in driver.queues.values():
        shape = bench.answers.get(queue.index, BOTH)
        queue.send(shape.out, shape.in_)
        queue.send(BOTH.out, BOTH.in_)
        queue.kick(force=True)
    if begun:
        bench.machine.settle()
