"""Kicks with data (2.9, 4.1.4.4.1, 4.1.5.2): the queue's name in 16 bits, and where its next chain is going to be."""

from collections.abc import Callable, Iterator

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import NOTIF_CONFIG_DATA, DriverQueue

NEEDS = ("NOTIFICATION_DATA",)
WINDOW = 5  # cfg_type of the capability that reaches BARs by configuration accesses

Kick = Callable[[DriverQueue, int], None]


def _ways(bench: Bench) -> dict[str, Kick]:
    """To write the 32 bits of a kick: into the BAR, where an eventfd may take them, and through the access window,
    where the device does.
    """
    function, place = bench.function, bench.modern.notification

    def by_bar(queue: DriverQueue, value: int) -> None:
        function.bar_write(place.bar, bench.modern.notify_address(queue.index), 4, value)

    def by_window(queue: DriverQueue, value: int) -> None:
        window = bench.modern.structures[WINDOW].at
        at = bench.modern.notify_address(queue.index)
        for offset, size, word in ((4, 1, place.bar), (8, 4, at), (12, 4, 4), (16, 4, value)):
            function.write(window + offset, size, word)

    return {"its BAR": by_bar, "the access window": by_window}


def _queues(bench: Bench, accepted: int | None = None) -> Iterator[tuple[DriverQueue, str, Kick]]:
    """Each queue that returns chains, with each way to kick it."""
    driver = bench.start(accepted)
    for queue, _ in bench.answering(driver):
        for name, kick in _ways(bench).items():
            yield queue, name, kick


def _served(bench: Bench, queue: DriverQueue, kick: Kick, *, ahead: int | None = None, named: int = -1) -> bool:
    """Whether a chain comes back that is kicked by *ahead* (default: what is so) and a name (default: the index)."""
    shape = bench.answers[queue.index]
    token = queue.send(shape.out, shape.in_)
    kick(queue, (queue.index if named < 0 else named) | (queue.ring.ahead if ahead is None else ahead) << 16)
    return [done.token for done in bench.collect(queue, 1)] == [token]


@rule("pci.notify.nd.offset_align4", "pci.notify.nd.len_min4", needs=NEEDS)
def notification_structure_is_aligned_for_32_bits(bench: Bench) -> None:
    """4.1.4.4.1."""
    s = bench.modern.notification
    assert s.offset % 4 == 0, f"offset {s.offset:#x}"
    assert s.length >= 4, f"{s.length} bytes"


@rule("pci.notify.nd.multiplier", needs=NEEDS)
def notify_multiplier_leaves_room_for_32_bits(bench: Bench) -> None:
    """4.1.4.4.1."""
    multiplier = bench.modern.multiplier
    assert multiplier % 4 == 0, f"multiplier {multiplier}"
    assert multiplier & (multiplier - 1) == 0, f"multiplier {multiplier}"


@rule("pci.notify.nd.len_all", "pci.notify.nd.len_formula", needs=NEEDS)
def notification_structure_has_room_for_32_bits_a_queue(bench: Bench) -> None:
    """4.1.4.4.1."""
    registers, length = bench.modern, bench.modern.notification.length
    for index in range(registers.read("num_queues")):
        registers.write("queue_select", index)
        end = registers.read("queue_notify_off") * registers.multiplier + 4
        assert end <= length, f"queue {index}: its notify register ends at {end}, the structure at {length}"


@rule("d.notif.data", needs=NEEDS)
def kick_of_32_bits_is_a_kick_whatever_it_says_of_the_ring(bench: Bench) -> None:
    """2.9: right, and stale, as where two processors of the guest make chains available."""
    for queue, way, kick in _queues(bench, bench.features & ~NOTIF_CONFIG_DATA):
        for ahead in (None, max(queue.ring.ahead - 1, 0), None):
            served = _served(bench, queue, kick, ahead=ahead)
            assert served, f"queue {queue.index}: nothing comes back that is kicked by 32 bits through {way}"


@rule("d.notif.data.split", needs=NEEDS, ring="split")
def kick_may_say_any_available_index(bench: Bench) -> None:
    """2.9: bit 31 is bit 15 of the index, and no flag of its own."""
    for queue, way, kick in _queues(bench, bench.features & ~NOTIF_CONFIG_DATA):
        for ahead in (0x7FFF, 0x8000, 0xFFFF, 0):
            served = _served(bench, queue, kick, ahead=ahead)
            assert served, f"queue {queue.index}: kicked with index {ahead:#x} through {way}, nothing comes back"


@rule("d.notif.repeat", needs=NEEDS)
def kick_may_be_repeated(bench: Bench) -> None:
    """2.9."""
    for queue, way, kick in _queues(bench, bench.features & ~NOTIF_CONFIG_DATA):
        assert _served(bench, queue, kick), f"queue {queue.index}: not served through {way}"
        for _ in range(3):
            kick(queue, queue.index | queue.ring.ahead << 16)
        again = bench.collect(queue, 1, 0.01)
        assert not again, f"queue {queue.index}: a repeated kick returns {again}"
        bench.exchange(queue, bench.answers[queue.index])


@rule("d.pci.notif_config_data", needs=(*NEEDS, "NOTIF_CONFIG_DATA"))
def queue_is_kicked_by_the_name_that_the_device_gives_it(bench: Bench) -> None:
    """4.1.4.3: queue_notif_config_data, which tells the queues apart."""
    registers = bench.modern
    names = {}
    for queue, way, kick in _queues(bench):
        registers.write("queue_select", queue.index)
        names[queue.index] = registers.read("queue_notif_config_data")
        served = _served(bench, queue, kick, named=names[queue.index])
        assert served, f"queue {queue.index}: kicked as {names[queue.index]} through {way}, nothing comes back"
    assert len(set(names.values())) == len(names), f"queues share a name: {names}"
