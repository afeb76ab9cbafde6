"""Drivers that break one clause each: what a careless driver does, by the clause's id."""

from collections.abc import Callable

from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.testing import DriverQueue, VirtioDriver
from acrn_dm.testing.driver import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    EVENT_IDX,
    FAILED,
    FEATURES_OK,
    IN_ORDER,
    INDIRECT_DESC,
    NOTIFICATION_DATA,
    RING_RESET,
    VERSION_1,
)

RAM = 0x8000
QUEUE = 0
Break = Callable[[VirtioDriver], object]
BREAKS: dict[str, Break] = {}


def breaks(clause: str) -> Callable[[Break], Break]:
    def keep(do: Break) -> Break:
        BREAKS[clause] = do
        return do

    return keep


def started(driver: VirtioDriver, features: int | None = None) -> DriverQueue:
    driver.start(features)
    return driver.queue(QUEUE)


def expose(driver: VirtioDriver, *descriptors: tuple[int, int, int, int], features: int = 0) -> DriverQueue:
    """Make one chain of raw (gpa, length, flags, next) available and have it looked at."""
    queue = started(driver, features)
    for index, descriptor in enumerate(descriptors):
        queue.ring.write_desc(index, *descriptor)
    queue.ring.make_available(0)
    look(queue)
    return queue


def look(queue: DriverQueue) -> None:
    queue.ring.publish()
    queue.driver.notify(queue.index)
    queue.driver.machine.settle()


def select(driver: VirtioDriver) -> VirtioDriver:
    driver.negotiate()
    driver.registers.write("queue_select", QUEUE)
    return driver


@breaks("status.no_clear")
def _(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = ACKNOWLEDGE | DRIVER
    driver.status = DRIVER


@breaks("status.failed")
def _(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = ACKNOWLEDGE | FAILED
    driver.status = ACKNOWLEDGE | FAILED | DRIVER


@breaks("status.reset_first")
def _(driver: VirtioDriver) -> None:
    driver.status = ACKNOWLEDGE


@breaks("status.acknowledge")
def _(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = DRIVER


@breaks("status.driver")
def _(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = ACKNOWLEDGE
    driver.registers.accept(VERSION_1)
    driver.status = ACKNOWLEDGE | FEATURES_OK


@breaks("status.features_ok")
def _(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = ACKNOWLEDGE | DRIVER
    driver.status = ACKNOWLEDGE | DRIVER | DRIVER_OK


@breaks("status.reread")
def _(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = ACKNOWLEDGE | DRIVER
    driver.registers.accept(VERSION_1)
    driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK
    driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK


@breaks("reset.wait")
def _(driver: VirtioDriver) -> None:
    driver.status = 0
    driver.status = ACKNOWLEDGE


@breaks("features.offered")
def _(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = ACKNOWLEDGE | DRIVER
    driver.registers.accept(VERSION_1 | 1 << 44)


@breaks("features.requires")
def _(driver: VirtioDriver) -> None:
    driver.negotiate(1 << 11)  # HOST_TSO4 of a network card, without CSUM


@breaks("features.frozen")
def _(driver: VirtioDriver) -> None:
    driver.negotiate()
    driver.registers.write("driver_feature", 0)


@breaks("features.version_1")
def _(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = ACKNOWLEDGE | DRIVER
    driver.registers.accept(0)
    driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK


@breaks("config.early_write")
def _(driver: VirtioDriver) -> None:
    driver.reset()
    driver.registers.write_config(0, 1, 1)


@breaks("config.generation")
def _(driver: VirtioDriver) -> None:
    driver.registers.read("config_generation")
    driver.registers.read_config(0, 4)
    driver.registers.read_config(4, 4)
    driver.registers.read("num_queues")


@breaks("config.width")
def _(driver: VirtioDriver) -> None:
    driver.registers.read_config(1, 2)


@breaks("common.read_only")
def _(driver: VirtioDriver) -> None:
    driver.registers.write("num_queues", 1)


@breaks("queue.size")
def _(driver: VirtioDriver) -> None:
    select(driver).registers.write("queue_size", 3)


@breaks("queue.enable_0")
def _(driver: VirtioDriver) -> None:
    select(driver).registers.write("queue_enable", 0)


@breaks("queue.order")
def _(driver: VirtioDriver) -> None:
    driver.negotiate()
    driver.setup_queue(QUEUE)
    driver.registers.write("queue_size", 4)


@breaks("queue.late")
def _(driver: VirtioDriver) -> None:
    driver.start(queues=[QUEUE])
    driver.setup_queue(1)


@breaks("queue.alignment")
def _(driver: VirtioDriver) -> None:
    select(driver)
    for name, gpa in (("queue_desc", RAM + 8), ("queue_driver", RAM), ("queue_device", RAM)):
        driver.registers.write(name, gpa)
    driver.registers.write("queue_enable", 1)


@breaks("notify.early")
def _(driver: VirtioDriver) -> None:
    driver.negotiate()
    driver.setup_queue(QUEUE)
    driver.notify(QUEUE)


@breaks("isr.msix")
def _(driver: VirtioDriver) -> None:
    driver.start()
    driver.registers.read_isr()


@breaks("avail.decrement")
def _(driver: VirtioDriver) -> None:
    queue = started(driver)
    queue.transfer([b"a"])
    queue.ring.set_avail_idx(0)
    driver.notify(QUEUE)
    driver.machine.settle()


@breaks("avail.too_many")
def _(driver: VirtioDriver) -> None:
    queue = started(driver)
    queue.ring.set_avail_idx(queue.ring.layout.size + 1)
    driver.notify(QUEUE)
    driver.machine.settle()


@breaks("avail.head")
def _(driver: VirtioDriver) -> None:
    queue = started(driver)
    queue.ring.make_available(queue.ring.layout.size)
    look(queue)


@breaks("avail.flags")
def _(driver: VirtioDriver) -> None:
    queue = started(driver, 0)
    driver.machine.memory.write(queue.ring.layout.avail_flags_at, b"\x02\0")
    queue.transfer([b"a"])


@breaks("avail.flags_event_idx")
def _(driver: VirtioDriver) -> None:
    queue = started(driver, EVENT_IDX)
    driver.machine.memory.write(queue.ring.layout.avail_flags_at, b"\x01\0")
    queue.transfer([b"a"])


@breaks("used.flags")
def _(driver: VirtioDriver) -> None:
    driver.negotiate()
    queue = driver.setup_queue(QUEUE)
    driver.machine.memory.write(queue.ring.layout.used_flags_at, b"\x01\0")
    driver.driver_ok()


@breaks("desc.write_order")
def _(driver: VirtioDriver) -> None:
    expose(driver, (RAM, 4, DESC_F_WRITE | DESC_F_NEXT, 1), (RAM, 4, 0, 0))


@breaks("desc.loop")
def _(driver: VirtioDriver) -> None:
    expose(driver, (RAM, 4, DESC_F_NEXT, 1), (RAM, 4, DESC_F_NEXT, 0))


@breaks("desc.total")
def _(driver: VirtioDriver) -> None:
    most = driver.machine.memory.regions[0].size
    part = (0, most, DESC_F_NEXT)
    count = (1 << 32) // most + 1
    expose(driver, *((*part, n + 1) for n in range(count)), (RAM, 4, 0, 0))


@breaks("desc.next")
def _(driver: VirtioDriver) -> None:
    expose(driver, (RAM, 4, DESC_F_NEXT, 64))


@breaks("desc.address")
def _(driver: VirtioDriver) -> None:
    expose(driver, (1 << 40, 4, 0, 0))


@breaks("desc.in_flight")
def _(driver: VirtioDriver) -> None:
    queue = started(driver)
    queue.ring.write_desc(0, RAM, 4, 0, 0)
    queue.ring.make_available(0)
    queue.ring.make_available(0)
    look(queue)


@breaks("desc.altered")
def _(driver: VirtioDriver) -> None:
    queue = started(driver)
    queue.send([b"held"])
    queue.kick()
    driver.machine.settle()
    queue.ring.write_desc(queue.ring.layout.size - 64, RAM, 8, 0, 0)
    device = driver.machine.device(3, object)  # type: ignore[attr-defined]
    device.complete(b"")
    driver.machine.settle()


@breaks("indirect.negotiated")
def _(driver: VirtioDriver) -> None:
    driver.start(0)
    driver.queue(QUEUE).send([b"a"], indirect=True)
    look(driver.queue(QUEUE))


def table(driver: VirtioDriver, *rows: tuple[int, int, int, int]) -> int:
    """An indirect table in guest memory; returns its address."""
    gpa = driver.machine.heap.take(16 * len(rows))
    for n, (address, length, flags, following) in enumerate(rows):
        raw = address.to_bytes(8, "little") + length.to_bytes(4, "little")
        raw += flags.to_bytes(2, "little") + following.to_bytes(2, "little")
        driver.machine.memory.write(gpa + 16 * n, raw)
    return gpa


@breaks("indirect.nested")
def _(driver: VirtioDriver) -> None:
    inner = table(driver, (RAM, 4, 0, 0))
    outer = table(driver, (inner, 16, DESC_F_INDIRECT, 0))
    expose(driver, (outer, 16, DESC_F_INDIRECT, 0), features=INDIRECT_DESC)


@breaks("indirect.next")
def _(driver: VirtioDriver) -> None:
    inner = table(driver, (RAM, 4, 0, 0))
    expose(driver, (inner, 16, DESC_F_INDIRECT | DESC_F_NEXT, 1), (RAM, 4, 0, 0), features=INDIRECT_DESC)


@breaks("indirect.length")
def _(driver: VirtioDriver) -> None:
    expose(driver, (RAM, 17, DESC_F_INDIRECT, 0), features=INDIRECT_DESC)


@breaks("indirect.too_long")
def _(driver: VirtioDriver) -> None:
    rows = [(RAM, 4, DESC_F_NEXT, n + 1) for n in range(64)]
    inner = table(driver, *rows, (RAM, 4, 0, 0))
    expose(driver, (inner, 16 * 65, DESC_F_INDIRECT, 0), features=INDIRECT_DESC)


def resettable(driver: VirtioDriver) -> VirtioDriver:
    started(driver, RING_RESET)
    driver.registers.write("queue_select", QUEUE)
    return driver


@breaks("queue.reset_0")
def _(driver: VirtioDriver) -> None:
    resettable(driver).registers.write("queue_reset", 0)


@breaks("queue.reset_feature")
def _(driver: VirtioDriver) -> None:
    started(driver, 0)
    driver.registers.write("queue_select", QUEUE)
    driver.registers.write("queue_reset", 1)


@breaks("queue.reset_wait")
def _(driver: VirtioDriver) -> None:
    resettable(driver).registers.write("queue_reset", 1)
    driver.registers.write("queue_size", 16)


@breaks("notify.width")
def _(driver: VirtioDriver) -> None:
    started(driver, NOTIFICATION_DATA)
    driver.registers.notify(QUEUE)


@breaks("notify.queue")
def _(driver: VirtioDriver) -> None:
    started(driver, NOTIFICATION_DATA)
    driver.registers.notify_data(QUEUE, QUEUE + 1, 0)  # type: ignore[attr-defined]


@breaks("desc.in_order")
def _(driver: VirtioDriver) -> None:
    queue = started(driver, IN_ORDER)
    queue.ring.write_desc(1, RAM, 4)
    queue.ring.make_available(1)
    look(queue)
