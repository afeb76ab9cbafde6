"""Rules of notification coalescing (virtio 5.1.6.5.10).

A device may notify more or less often than it was told (net.coal.best_effort), so no rule counts how long it waits:
what a rule can say is that it has notified once a condition is met, that it keeps quiet where the driver wants that,
and what it answers.
"""

import struct

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import offers
from acrn_dm.testing.conformance.kinds.net import bits
from acrn_dm.testing.conformance.kinds.net.card import ACK_ERROR, ACK_OK, Card, card
from acrn_dm.testing.conformance.kinds.net.packets import frame
from acrn_dm.testing.conformance.rule import rule

NET = ("net",)
GROUP, TX_SET, RX_SET, VQ_SET, VQ_GET = 6, 0, 1, 2, 3
RX, TX = 0, 1
BOTH = bits.NOTF_COAL | bits.VQ_NOTF_COAL
NONE = (0, 0)
MANY, LONG_US = 10_000, 10_000_000  # no condition is met by itself
PATIENCE_S = 1.0  # of the device's time, for a notification that is due


def _set(c: Card, kind: int, packets: int, usecs: int) -> int:
    """TX_SET or RX_SET; the acknowledgement."""
    ack, _ = c.command(GROUP, TX_SET if kind == TX else RX_SET, struct.pack("<II", packets, usecs))
    return ack


def _set_one(c: Card, queue: int, packets: int, usecs: int, reserved: int = 0) -> int:
    ack, _ = c.command(GROUP, VQ_SET, struct.pack("<HHII", queue, reserved, packets, usecs))
    return ack


def _get(c: Card, queue: int, reserved: int = 0) -> tuple[int, tuple[int, ...]]:
    """VQ_GET: the acknowledgement, and (max_packets, max_usecs)."""
    ack, answer = c.command(GROUP, VQ_GET, struct.pack("<HH", queue, reserved), room=8)
    return ack, struct.unpack("<II", answer)


def _has(c: Card, queue: int, limits: tuple[int, int], when: str) -> None:
    ack, found = _get(c, queue)
    assert ack == ACK_OK, f"VQ_GET of queue {queue} is acknowledged with {ack}"
    assert found == limits, f"{when} queue {queue} has the parameters {found}, not {limits}"


def _asleep(c: Card, count: int) -> None:
    """Send *count* frames one by one, as a driver that does not look at what came back until it is interrupted."""
    queue = c.driver.queue(TX)
    for _ in range(count):
        queue.send([bytes(c.header), frame(b"counted")])
        queue.kick()
        c.bench.machine.settle()


def _notified_after(c: Card, count: int, *, wait: bool) -> int:
    """Interrupts for *count* frames, with PATIENCE_S for them if *wait*."""
    c.driver.queue(TX).completed()
    c.bench.notified(c.driver)
    _asleep(c, count)
    found = c.bench.notified(c.driver)
    if wait and not found:
        c.bench.machine.advance(PATIENCE_S)
        c.bench.machine.settle()
        found = c.bench.notified(c.driver)
    return found


@rule("net.coal.reserved", kinds=NET, needs=("VQ_NOTF_COAL",))
def reserved_field_is_ignored(bench: Bench) -> None:
    c = card(bench, want=bits.VQ_NOTF_COAL)
    ack = _set_one(c, TX, 3, 30, reserved=0xFFFF)
    assert ack == ACK_OK, f"VQ_SET with a reserved field that is not 0 is acknowledged with {ack}"
    assert _get(c, TX, reserved=0xA5A5) == (ACK_OK, (3, 30)), "VQ_GET answers otherwise with a reserved field"


@rule("net.coal.txrx_err", kinds=NET, needs=("NOTF_COAL", "VQ_NOTF_COAL"))
def parameters_of_all_queues_are_changed_or_refused(bench: Bench) -> None:
    c = card(bench, want=BOTH)
    for kind in (RX, TX):
        for wanted in ((2, 20), (0xFFFF_FFFF, 0xFFFF_FFFF), (0, 5), (5, 0)):
            _, before = _get(c, kind)
            ack = _set(c, kind, *wanted)
            expected = wanted if ack == ACK_OK else before
            assert _get(c, kind) == (ACK_OK, expected), (
                f"after {wanted}, acknowledged with {ack}, it is {_get(c, kind)}"
            )


@rule("net.coal.vq_set_err", kinds=NET, needs=("VQ_NOTF_COAL",))
def parameters_of_a_queue_are_changed_or_refused(bench: Bench) -> None:
    c = card(bench, want=bits.VQ_NOTF_COAL)
    for queue in (RX, TX):
        for wanted in ((2, 20), (0xFFFF_FFFF, 0xFFFF_FFFF), (0, 5), (5, 0)):
            _, before = _get(c, queue)
            ack = _set_one(c, queue, *wanted)
            expected = wanted if ack == ACK_OK else before
            assert _get(c, queue) == (ACK_OK, expected), f"{wanted}, acknowledged with {ack}, left {_get(c, queue)}"


@rule("net.coal.vq_disabled_err", kinds=NET, needs=("VQ_NOTF_COAL",))
def queue_that_carries_no_packets_is_refused(bench: Bench) -> None:
    c = card(bench, want=bits.VQ_NOTF_COAL)
    wrong = [2 * c.pairs, 2 * c.pairs + 1, 0xFFFF]
    if c.driver.features & bits.RING_RESET:
        c.driver.reset_queue(RX)
        wrong.append(RX)
    for queue in wrong:
        ack = _set_one(c, queue, 1, 1)
        assert ack == ACK_ERROR, f"VQ_SET of queue {queue} is acknowledged with {ack}"
        ack, _ = _get(c, queue)
        assert ack == ACK_ERROR, f"VQ_GET of queue {queue} is acknowledged with {ack}"


def _comes_back(bench: Bench, kind: int) -> None:
    c = card(bench, want=bits.VQ_NOTF_COAL)
    offers(bench, bits.RING_RESET)
    assert _set_one(c, kind, 4, 40) == ACK_OK, "VQ_SET is refused"
    c.driver.reset_queue(kind)
    c.driver.setup_queue(kind)
    _has(c, kind, NONE, "where its kind was never set, after its reset")
    if not c.driver.features & bits.NOTF_COAL:
        return
    assert _set(c, kind, 3, 30) == ACK_OK, "parameters for all queues are refused"
    assert _set_one(c, kind, 4, 40) == ACK_OK, "VQ_SET is refused"
    c.driver.reset_queue(kind)
    c.driver.setup_queue(kind)
    _has(c, kind, (3, 30), "after its reset")


@rule("net.coal.tx_reenable", kinds=NET, needs=("VQ_NOTF_COAL", "RING_RESET"))
def transmit_queue_that_comes_back_has_those_of_its_kind(bench: Bench) -> None:
    _comes_back(bench, TX)


@rule("net.coal.rx_reenable", kinds=NET, needs=("VQ_NOTF_COAL", "RING_RESET"))
def receive_queue_that_comes_back_has_those_of_its_kind(bench: Bench) -> None:
    _comes_back(bench, RX)


@rule("net.coal.respect_suppression", kinds=NET, needs=("NOTF_COAL",))
def driver_that_wants_no_notification_gets_none(bench: Bench) -> None:
    c = card(bench, want=bits.NOTF_COAL)
    for limits in ((2, 1000), (MANY, 1000)):
        assert _set(c, TX, *limits) == ACK_OK, "TX_SET is refused"
        for _ in range(3):
            c.send(frame(b"before"))
        c.bench.machine.advance(PATIENCE_S)
        c.driver.queue(TX).set_quiet(True)
        assert not _notified_after(c, 5, wait=True), f"an interrupt that the driver does not want, with {limits}"
        c.driver.queue(TX).completed()
        c.driver.queue(TX).set_quiet(False)


@rule("net.coal.reset_zero", kinds=NET, needs=("VQ_NOTF_COAL",))
def reset_forgets_all_parameters(bench: Bench) -> None:
    c = card(bench, want=bits.VQ_NOTF_COAL)
    for queue in (RX, TX):
        assert _set_one(c, queue, 3, 30) == ACK_OK, "VQ_SET is refused"
    if c.driver.features & bits.NOTF_COAL:
        _set(c, TX, 5, 50)
    c.driver.start(c.driver.features)
    for queue in (RX, TX):
        _has(c, queue, NONE, "after a reset")


@rule("d.net.coal.cond", kinds=NET, needs=("NOTF_COAL",))
def condition_that_is_met_notifies(bench: Bench) -> None:
    """Never more than that: it may notify more often."""
    c = card(bench, want=bits.NOTF_COAL)
    for limits in ((0, 0), (0, LONG_US), (MANY, 0)):
        assert _set(c, TX, *limits) == ACK_OK, f"TX_SET {limits} is refused"
        assert _notified_after(c, 1, wait=False), f"a packet without an interrupt, with {limits}"
    assert _set(c, TX, 4, LONG_US) == ACK_OK, "TX_SET is refused"
    assert _notified_after(c, 4, wait=False), "no interrupt after max_packets"
    assert _set(c, TX, MANY, 1000) == ACK_OK, "TX_SET is refused"
    for _ in range(3):
        assert _notified_after(c, 2, wait=True), "no interrupt although max_usecs have passed"


@rule("d.net.coal.change", kinds=NET, needs=("NOTF_COAL",))
def smaller_parameters_hold_for_what_waits(bench: Bench) -> None:
    c = card(bench, want=bits.NOTF_COAL)
    for smaller in ((8, LONG_US), (MANY, 1), (0, 0)):
        assert _set(c, TX, MANY, LONG_US) == ACK_OK, "TX_SET is refused"
        found = _notified_after(c, 10, wait=False)
        c.bench.machine.advance(PATIENCE_S)
        before = c.driver.queue_interrupts(TX)
        assert _set(c, TX, *smaller) == ACK_OK, "TX_SET is refused"
        assert found or c.driver.queue_interrupts(TX) > before, f"what waits is not told of after TX_SET {smaller}"


@rule("d.net.coal.last_wins", kinds=NET, needs=("NOTF_COAL", "VQ_NOTF_COAL"))
def last_parameters_count_whichever_command_set_them(bench: Bench) -> None:
    c = card(bench, want=BOTH)
    queues = range(2 * c.pairs)
    assert _set(c, RX, 3, 30) == ACK_OK, "RX_SET is refused"
    for queue in queues:
        _has(c, queue, (3, 30) if queue % 2 == RX else NONE, "after RX_SET")
    assert _set_one(c, RX, 4, 40) == ACK_OK, "VQ_SET is refused"
    assert _set_one(c, TX, 5, 50) == ACK_OK, "VQ_SET is refused"
    for queue in queues[2:]:
        _has(c, queue, (3, 30) if queue % 2 == RX else NONE, "after VQ_SET of another queue")
    _has(c, RX, (4, 40), "after VQ_SET")
    assert _set(c, TX, 6, 60) == ACK_OK, "TX_SET is refused"
    for queue in queues:
        _has(c, queue, ((4, 40) if queue == RX else (3, 30)) if queue % 2 == RX else (6, 60), "after TX_SET")
