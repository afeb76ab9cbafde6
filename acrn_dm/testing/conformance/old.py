"""Checks that any virtio device has to pass, whatever it does; each on a fresh machine.

In a plugin's tests, one test per check::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(lambda machine: machine.add(MyDevice, "path=x", slot=SLOT))

or all at once, ``assert_device_conforms(build)``. *build* puts the device into ``SLOT`` of the machine it is given. Row
ids in the docstrings are those of the device requirements of virtio 1.4.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.testing.driver import EVENT_IDX, FEATURES_OK, NEEDS_RESET, POISON, VERSION_1, DriverQueue, VirtioDriver
from acrn_dm.testing.machine import SimMachine
from acrn_dm.testing.register_access import COMMON, ModernRegisters
from acrn_dm.virtio import features

log = logging.getLogger(__name__)

SLOT = 3
ROUNDS = 3
REQUEST = (bytes(16), bytes(64))  # device-readable buffers that mean nothing to most devices
ANSWER = (64, 1)  # device-writable ones
WIDTHS = (1, 2, 4)

Build = Callable[[SimMachine], object]
Check = Callable[[Build], None]


@contextmanager
def _driver(build: Build) -> Iterator[VirtioDriver]:
    """A machine with the device, and a driver that has not touched it yet."""
    with SimMachine() as machine:
        build(machine)
        yield machine.driver(SLOT)


def check_offered_features_are_known_and_complete(build: Build) -> None:
    """feat.no_unsupported_bits, feat.offer_deps, rsvd.version_1.offer."""
    with _driver(build) as driver:
        offered = driver.registers.offered()
        device_id = _device_id(driver)
        assert offered & VERSION_1, "VERSION_1 is not offered"
        allowed = features.DEVICE_BITS | features.OFFERED_BY_TRANSPORT
        unknown = features.names(device_id, offered & ~allowed)
        assert not unknown, f"offers {unknown}"
        unmet = [f.name for f in features.unmet(device_id, offered)]
        assert not unmet, f"offers {unmet} without prerequisites"


def check_every_valid_subset_of_features_starts(build: Build) -> None:
    """feat.accept_valid_subset, feat.renegotiate_same: each offered bit alone, none, and all, twice."""
    with _driver(build) as driver:
        offered = driver.registers.offered()
        device_id = _device_id(driver)
        least = features.MANDATORY.get(device_id, 0)
        subsets = {features.prune(device_id, offered & ~(1 << bit)) | least for bit in range(offered.bit_length())}
        for subset in [least, offered, *sorted(subsets), least, offered]:
            assert driver.start(subset), f"refuses {features.names(device_id, subset)}"
            assert not driver.status & NEEDS_RESET, f"fails with {features.names(device_id, subset)}"


def check_features_that_are_not_offered_are_refused(build: Build) -> None:
    """feat.reject_bad_subset."""
    with _driver(build) as driver:
        offered = driver.registers.offered()
        for bit in range(128):
            if not offered >> bit & 1:
                assert driver.negotiate(1 << bit) == 0, f"accepts bit {bit}, which it does not offer"
                assert not driver.status & FEATURES_OK


def check_configuration_is_readable_everywhere_and_zero_past_its_end(build: Build) -> None:
    """config.read_before_features_ok; any width at any offset, before and after negotiation."""
    with _driver(build) as driver:
        size = _config_size(driver)
        if size == 0:
            return
        for _ in range(2):
            for width in WIDTHS:
                for offset in range(size):
                    driver.registers.read_config(offset, width)
                for offset in range(size, size + 16):
                    assert driver.registers.read_config(offset, width) == 0, f"configuration ends at {size}"
            assert not driver.status & NEEDS_RESET, "reading the configuration broke the device"
            driver.start()


def check_configuration_writes_do_no_harm(build: Build) -> None:
    """Any value in any field, also past the end: the device may ignore it or ask for a reset."""
    with _driver(build) as driver:
        size = _config_size(driver)
        if size == 0:
            return
        driver.start()
        for width in WIDTHS:
            for offset in range(size + 8):
                driver.registers.write_config(offset, width, (1 << 8 * width) - 1)
        driver.machine.settle()
        _assert_usable(driver)


def check_nothing_is_used_before_driver_ok(build: Build) -> None:
    """status.no_consume_before_driver_ok, status.no_used_notify_before_driver_ok."""
    with _driver(build) as driver:
        driver.negotiate()
        for index in driver.all_queues():
            queue = driver.setup_queue(index)
            queue.send(REQUEST, ANSWER)
            queue.kick(force=True)
        driver.machine.settle()
        assert not any(queue.completed() for queue in driver.queues.values())
        assert not driver.machine.interrupts, "interrupts before DRIVER_OK"


def check_no_interrupt_at_driver_ok(build: Build) -> None:
    """A driver that has just started has nothing to be told."""
    with _driver(build) as driver:
        driver.start()
        assert driver.config_interrupts == 0
        assert driver.registers.read_isr() == 0


def check_each_chain_is_returned_at_most_once_and_within_bounds(build: Build) -> None:
    """split.used.len_bytes_written, split.desc.no_write_readable, split.desc.no_write_table, on every queue."""
    with _driver(build) as driver:
        for accepted in (None, 0, EVENT_IDX):
            driver.start(accepted)
            for queue in driver.queues.values():
                for out, in_ in ((REQUEST, ANSWER), (REQUEST, ()), ((), ANSWER)):
                    _exchange(queue, out, in_)


def check_registers_are_pristine_after_reset(build: Build) -> None:
    """reset.status_zero, pci.common.queue_enable.reset0, pci.msix.reset_unmapped."""
    with _driver(build) as driver:
        before = _dump(driver)
        for _ in range(ROUNDS):
            driver.start()
            for queue in driver.queues.values():
                queue.send(REQUEST, ANSWER)
                queue.kick()
            driver.machine.settle()
            driver.reset()
            after = _dump(driver)
            assert after == before, f"differ after reset: {[k for k in before if before[k] != after[k]]}"


def check_reset_ends_all_work(build: Build) -> None:
    """reset.no_notify, reset.no_queue_access: with work in flight, memory and interrupts stand still afterwards."""
    with _driver(build) as driver:
        driver.start()
        for queue in driver.queues.values():
            queue.send(REQUEST, ANSWER)
            queue.kick()
        driver.reset()
        driver.machine.take_interrupts()
        driver.machine.interrupts.clear()
        ram = driver.machine.memory.map
        base, length = driver.machine.heap.used_range
        ram.write(base, bytes([POISON]) * length)
        driver.machine.settle()
        assert ram.read(base, length) == bytes([POISON]) * length, "guest memory changed after the reset"
        assert not driver.machine.interrupts, "interrupts after the reset"
        _assert_usable(driver)


def check_spurious_kicks_are_harmless(build: Build) -> None:
    """split.avail_notify.spurious: before set-up, empty, of queues that do not exist."""
    with _driver(build) as driver:
        bar, offset, length = _notify_region(driver)
        for _ in range(2):
            for at in range(0, length, 2):
                for width in WIDTHS:
                    driver.function.bar_write(bar, offset + at, width, 0xFFFF & ((1 << 8 * width) - 1))
            driver.machine.settle()
            assert not driver.status & NEEDS_RESET
            driver.start()


def check_hostile_chains_cost_no_more_than_a_reset(build: Build) -> None:
    """status.needs_reset.set: every queue, every malformed ring; the device works again after a reset."""
    for name, poke in HOSTILE.items():
        with _driver(build) as driver:
            driver.negotiate()
            for index in driver.all_queues():
                driver.start()
                poke(driver.queue(index))
                driver.registers.notify(index)
                driver.machine.settle()
                driver.machine.take_interrupts()
                log.debug("%s on queue %d: status %#x", name, index, driver.status)
            _assert_usable(driver)


def check_two_instances_do_not_share_state(build: Build) -> None:
    """Resetting one machine's device while another's runs."""
    with _driver(build) as first, _driver(build) as second:
        first.start()
        second.start()
        first.reset()
        assert second.status & FEATURES_OK
        _assert_usable(first)
        _assert_usable(second)


def check_legacy_driver_starts_if_there_is_a_legacy_interface(build: Build) -> None:
    """pci.legacy.*, legacy.feat.any_layout."""
    with SimMachine() as machine:
        build(machine)
        function = machine.function(SLOT)
        if 0 not in function.bars or not function.bars[0].io:
            return
        driver = machine.driver_legacy(SLOT)
        assert driver.registers.offered() & features.ANY_LAYOUT
        for accepted in (None, 0):
            driver.start(accepted)
            for queue in driver.queues.values():
                _exchange(queue, REQUEST, ANSWER)


def check_no_file_or_thread_is_left_behind(build: Build) -> None:
    """Open files and threads are as before once the machine is closed."""
    _use_once(build)  # what is made once per process, such as a logger or a cache, is there now
    files, threads = _open_files(), threading.active_count()
    _use_once(build)
    assert _open_files() == files, "files are left open"
    assert threading.active_count() == threads, "threads are left running"


CHECKS: tuple[Check, ...] = tuple(v for k, v in list(globals().items()) if k.startswith("check_"))


def assert_device_conforms(build: Build) -> None:
    """Run every check; the first that fails names itself."""
    for check in CHECKS:
        try:
            check(build)
        except AssertionError as e:
            raise AssertionError(f"{check.__name__}: {e}") from e


def _poke(*descriptors: tuple[int, int, int, int], head: int = 0, jump: int = 0) -> Callable[[DriverQueue], None]:
    """Put raw (gpa, length, flags, next) *descriptors* into the table and make *head* available."""

    def poke(queue: DriverQueue) -> None:
        for index, (gpa, length, flags, following) in enumerate(descriptors):
            queue.ring.write_desc(index, gpa, length, flags, following)
        queue.ring.make_available(head)
        queue.ring.publish()
        if jump:
            queue.ring.set_avail_idx(queue.ring.published_avail + jump)

    return poke


RAM = 0x10_0000
HOSTILE: dict[str, Callable[[DriverQueue], None]] = {
    "loop": _poke((RAM, 16, DESC_F_NEXT, 1), (RAM, 16, DESC_F_NEXT, 0)),
    "self-loop of length 0": _poke((RAM, 0, DESC_F_NEXT, 0)),
    "head outside the table": _poke((RAM, 16, 0, 0), head=0xFFFF),
    "next outside the table": _poke((RAM, 16, DESC_F_NEXT, 0xFFFF)),
    "length 0 only": _poke((RAM, 0, 0, 0)),
    "readable after writable": _poke((RAM, 16, DESC_F_NEXT | DESC_F_WRITE, 1), (RAM, 16, 0, 0)),
    "address outside RAM": _poke((1 << 40, 16, DESC_F_WRITE, 0)),
    "address wraps": _poke((2**64 - 1, 2, 0, 0)),
    "length over the end of RAM": _poke((RAM, 0xFFFF_FFFF, 0, 0)),
    "sum of lengths": _poke((RAM, 0xFFFF_FFFF, DESC_F_NEXT, 1), (RAM, 0xFFFF_FFFF, DESC_F_WRITE, 0)),
    "indirect of length 0": _poke((RAM, 0, DESC_F_INDIRECT, 0)),
    "indirect of odd length": _poke((RAM, 17, DESC_F_INDIRECT, 0)),
    "indirect with next": _poke((RAM, 16, DESC_F_INDIRECT | DESC_F_NEXT, 1), (RAM, 16, 0, 0)),
    "index jump": _poke((RAM, 16, 0, 0), jump=0x8000),
    "index backwards": _poke((RAM, 16, 0, 0), jump=-2),
    "one byte each way": _poke((RAM, 1, DESC_F_NEXT, 1), (RAM, 1, DESC_F_WRITE, 0)),
    "nothing but one byte": _poke((RAM, 1, DESC_F_WRITE, 0)),
    "device's own registers": _poke((0x8000_0000, 16, DESC_F_WRITE, 0)),
}


def _exchange(queue: DriverQueue, out: tuple[bytes, ...], in_: tuple[int, ...]) -> None:
    """Send one chain and judge what comes back, if anything does: devices may keep a chain or ask for a reset."""
    readable = queue.send(out, in_)
    where = queue.ring.layout.parts()[0]
    table = queue.driver.machine.memory.read(where.gpa, where.length)
    queue.kick()
    queue.driver.machine.settle()
    done = queue.completed()
    assert queue.driver.machine.memory.read(where.gpa, where.length) == table, "descriptor table written to"
    # Chains that were kept may come back with it, as statistics of a balloon do; none comes twice (``completed``).
    assert all(c.token <= readable for c in done), f"returned {[c.token for c in done]} for chain {readable}"
    for completion in done:
        room = len(completion.data)
        assert completion.written <= room, f"claims {completion.written} of {room} writable bytes"


def _assert_usable(driver: VirtioDriver) -> None:
    """A reset brings the device back, whatever happened."""
    driver.machine.settle()
    driver.start()
    assert not driver.status & NEEDS_RESET, "the device is not usable after a reset"


def _use_once(build: Build) -> None:
    with _driver(build) as driver:
        for _ in range(ROUNDS):
            driver.start()
            for queue in driver.queues.values():
                queue.send(REQUEST, ANSWER)
                queue.kick()
            driver.machine.settle()


def _dump(driver: VirtioDriver) -> dict[str, int]:
    """Every common register but the selectors (whose reset value nobody defines), those of queues for every queue."""
    read, write = driver.registers.read, driver.registers.write
    # config_generation may have any value; the feature words show what their selectors say.
    left_out = {"config_generation", "device_feature", "driver_feature"}
    names = [n for n in COMMON if not n.startswith("queue_") and "select" not in n and n not in left_out]
    values = {name: read(name) for name in names}
    for index in range(read("num_queues")):
        write("queue_select", index)
        values |= {
            f"{name} {index}": read(name) for name in COMMON if name.startswith("queue_") and name != "queue_select"
        }
    return values


def _device_id(driver: VirtioDriver) -> int:
    pci_id, subsystem = driver.function.read(0x02, 2), driver.function.read(0x2E, 2)
    return subsystem if pci_id < 0x1040 else pci_id - 0x1040


def _config_size(driver: VirtioDriver) -> int:
    config = _modern(driver).config
    return 0 if config is None else config.length


def _notify_region(driver: VirtioDriver) -> tuple[int, int, int]:
    notification = _modern(driver).notification
    return notification.bar, notification.offset, notification.length


def _modern(driver: VirtioDriver) -> ModernRegisters:
    assert isinstance(driver.registers, ModernRegisters)
    return driver.registers


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
