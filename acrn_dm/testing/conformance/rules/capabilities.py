"""The identity and capabilities of a virtio function: what its configuration space says (4.1.2, 4.1.4)."""

import itertools

from acrn_dm.testing.conformance.bench import PROBE_S, Bench
from acrn_dm.testing.conformance.probes import BOTH
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.conformance.table import KINDS
from acrn_dm.testing.driver import VirtioDriver
from acrn_dm.testing.guest_pci import CAP_MSIX, CAPABILITIES, STATUS
from acrn_dm.testing.register_access import Structure, find_structures
from acrn_dm.virtio.defs import TRANSITIONAL_PCI_ID, VENDOR_ID

COMMON, NOTIFY, ISR, DEVICE, WINDOW = 1, 2, 3, 4, 5
NAMES = {COMMON: "common", NOTIFY: "notification", ISR: "ISR", DEVICE: "device", WINDOW: "PCI configuration access"}
LEAST = {COMMON: 16, NOTIFY: 20, ISR: 16, DEVICE: 16, WINDOW: 20}  # cap_len
COMMON_LENGTH = 0x38
WITHOUT_CONFIG = ("entropy", "i2c")


def _structures(bench: Bench, kind: int) -> list[Structure]:
    found = [s for s in find_structures(bench.function) if s.type == kind]
    assert found, f"no {NAMES[kind]} capability (cfg_type {kind})"
    return found


def _transitional(bench: Bench) -> None:
    if not bench.legacy:
        raise NotApplicable("the device has no legacy interface")


def _modern_only(bench: Bench) -> None:
    if bench.legacy:
        raise NotApplicable("the device is transitional")


# Identity


@rule("pci.id.vendor", "d.pci.dev_id_range")
def vendor_is_virtio(bench: Bench) -> None:
    """4.1.2: and the id is one of those that drivers look for."""
    assert bench.function.read(0, 2) == VENDOR_ID
    assert 0x1000 <= bench.function.read(2, 2) <= 0x107F, f"device id {bench.function.read(2, 2):#x}"


@rule("pci.id.device")
def device_id_tells_the_type(bench: Bench) -> None:
    """4.1.2.1."""
    pci_id = bench.function.read(2, 2)
    allowed = {0x1040 + bench.device_id, TRANSITIONAL_PCI_ID.get(bench.device_id, 0)}
    assert pci_id in allowed, f"PCI device id {pci_id:#x} for virtio device {bench.device_id}"


@rule("pci.id.modern_range")
def modern_device_has_a_modern_id(bench: Bench) -> None:
    """4.1.2.1."""
    _modern_only(bench)
    assert 0x1040 <= bench.function.read(2, 2) <= 0x107F, f"device id {bench.function.read(2, 2):#x}"


@rule("pci.id.modern_rev")
def modern_device_has_a_revision(bench: Bench) -> None:
    """4.1.2.1."""
    _modern_only(bench)
    assert bench.function.read(8, 1) >= 1, "revision 0 is that of transitional devices"


@rule("pci.id.modern_subsys")
def modern_device_has_a_high_subsystem_id(bench: Bench) -> None:
    """4.1.2.1: below 0x40 legacy drivers take it for a type."""
    _modern_only(bench)
    assert bench.function.read(0x2E, 2) >= 0x40, f"subsystem device id {bench.function.read(0x2E, 2):#x}"


@rule("pci.legacy.rev0")
def transitional_device_has_revision_0(bench: Bench) -> None:
    """4.1.2.3."""
    _transitional(bench)
    assert bench.function.read(8, 1) == 0, f"revision {bench.function.read(8, 1)}"


@rule("pci.legacy.subsys")
def transitional_device_has_its_type_as_subsystem_id(bench: Bench) -> None:
    """4.1.2.3."""
    _transitional(bench)
    subsystem = bench.function.read(0x2E, 2)
    assert subsystem in KINDS or subsystem in TRANSITIONAL_PCI_ID, f"subsystem device id {subsystem:#x}"
    assert TRANSITIONAL_PCI_ID.get(subsystem) == bench.function.read(2, 2), "subsystem and device id disagree"


@rule("pci.legacy.devid")
def transitional_device_has_a_transitional_id(bench: Bench) -> None:
    """4.1.2.3."""
    _transitional(bench)
    assert 0x1000 <= bench.function.read(2, 2) <= 0x103F, f"device id {bench.function.read(2, 2):#x}"


@rule("pci.pci_conformant")
def function_is_one_that_pci_knows(bench: Bench) -> None:
    """4.1.1: header type 0, a capability list that the status register announces, structures inside their BARs."""
    function = bench.function
    assert function.read(0x0E, 1) & 0x7F == 0, "header type is not 0"
    assert function.read(STATUS, 2) & 0x10, "the status register announces no capability list"
    assert function.read(CAPABILITIES, 1) % 4 == 0
    assert all(cap.at % 4 == 0 and cap.at >= 0x40 for cap in function.capabilities), "a capability is not aligned"
    for bar in function.bars.values():
        assert bar.size & (bar.size - 1) == 0, f"BAR {bar.index} has {bar.size:#x} bytes"
        assert bar.base % bar.size == 0, f"BAR {bar.index} is not aligned to its size"
    for s in find_structures(function):
        if s.type in (COMMON, NOTIFY, ISR, DEVICE):
            assert s.bar in function.bars, f"{NAMES[s.type]}: there is no BAR {s.bar}"
            assert s.offset + s.length <= function.bars[s.bar].size, f"{NAMES[s.type]} ends outside BAR {s.bar}"


# Structures


@rule("pci.common.present", "pci.common.offset_align")
def common_structure_is_there_and_aligned(bench: Bench) -> None:
    """4.1.4.3.1."""
    for s in _structures(bench, COMMON):
        assert s.offset % 4 == 0, f"offset {s.offset:#x}"
        assert s.length >= COMMON_LENGTH, f"{s.length} bytes"


@rule("pci.notify.present")
def notification_structure_is_there(bench: Bench) -> None:
    """4.1.4.4.1."""
    _structures(bench, NOTIFY)


@rule("pci.notify.offset_align2", "pci.notify.len_min2")
def notification_structure_is_aligned_and_has_room(bench: Bench) -> None:
    """4.1.4.4.1."""
    for s in _structures(bench, NOTIFY):
        assert s.offset % 2 == 0, f"offset {s.offset:#x}"
        assert s.length >= 2, f"{s.length} bytes"


@rule("pci.notify.multiplier")
def notify_multiplier_is_0_or_an_even_power_of_2(bench: Bench) -> None:
    """4.1.4.4.1."""
    multiplier = bench.modern.multiplier
    assert multiplier == 0 or (multiplier != 1 and multiplier & (multiplier - 1) == 0), f"multiplier {multiplier}"


@rule("pci.notify.len_all", "pci.notify.len_formula")
def notification_structure_has_room_for_every_queue(bench: Bench) -> None:
    """4.1.4.4.1."""
    registers, length = bench.modern, bench.modern.notification.length
    for index in range(registers.read("num_queues")):
        registers.write("queue_select", index)
        end = registers.read("queue_notify_off") * registers.multiplier + 2
        assert end <= length, f"queue {index}: its notify register ends at {end}, the structure at {length}"


@rule("d.pci.notify_addr")
def each_queue_is_kicked_at_its_own_place(bench: Bench) -> None:
    """4.1.4.4: cap.offset + queue_notify_off * multiplier, whatever is written there."""
    driver = bench.start()
    _none_hears_elsewhere(bench, driver)
    driver = bench.restart(driver)
    for queue, shape in bench.answering(driver):
        token = queue.send(shape.out, shape.in_)
        place = bench.modern.notification
        at = bench.modern.notify_address(queue.index)
        bench.function.bar_write(place.bar, at, 2, queue.index)
        came = [done.token for done in bench.collect(queue, 1)]
        assert came == [token], f"queue {queue.index}: kicked at {at:#x}, got back {came}"


def _none_hears_elsewhere(bench: Bench, driver: VirtioDriver) -> None:
    """No queue that is deaf at its own place is served when all places are kicked."""
    place = bench.modern.notification
    for queue in driver.queues.values():
        if queue.index in bench.answers or queue.ring.free_descriptors < len(BOTH.out) + len(BOTH.in_):
            continue
        queue.send(BOTH.out, BOTH.in_)
        bench.function.bar_write(place.bar, bench.modern.notify_address(queue.index), 2, queue.index)
        if not bench.collect(queue, 1, PROBE_S):
            for at in range(0, place.length, 2):
                bench.function.bar_write(place.bar, place.offset + at, 2, queue.index)
            assert not bench.collect(queue, 1, PROBE_S), f"queue {queue.index} hears a kick, but not at its own place"


@rule("pci.isr.present")
def isr_structure_is_there(bench: Bench) -> None:
    """4.1.4.5.1."""
    assert all(s.length >= 1 for s in _structures(bench, ISR))


@rule("pci.devcfg.present", "pci.devcfg.offset_align")
def device_structure_is_there_and_aligned(bench: Bench) -> None:
    """4.1.4.6.1: of a type that has a configuration."""
    if bench.kind in WITHOUT_CONFIG or (not bench.kind and not bench.config_size):
        raise NotApplicable("this type has no configuration")
    for s in _structures(bench, DEVICE):
        assert s.offset % 4 == 0, f"offset {s.offset:#x}"


@rule("pci.cap.cap_len")
def capabilities_are_as_long_as_they_say(bench: Bench) -> None:
    """4.1.4.1: up to the end of what is added to the common head, and no two of them overlap."""
    places = []
    for s in find_structures(bench.function):
        assert s.cap_length >= LEAST.get(s.type, 16), f"cfg_type {s.type}: cap_len {s.cap_length}"
        places.append((s.at, s.at + s.cap_length))
    places.sort()
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(places)), f"capabilities overlap: {places}"


@rule("d.pci.cap_ro")
def capabilities_are_read_only(bench: Bench) -> None:
    """4.1.4: all but bar, offset, length and data of the access window."""
    for s in find_structures(bench.function):
        if s.type == WINDOW:
            continue
        for at in range(s.at, s.at + s.cap_length - 3, 4):
            before = bench.function.read(at, 4)
            bench.function.write(at, 4, before ^ 0xFFFF_FFFF)
            assert bench.function.read(at, 4) == before, f"a write changes cfg_type {s.type} at {at:#x}"


@rule("d.pci.le")
def registers_are_little_endian(bench: Bench) -> None:
    """4.1.3: 64-bit fields as low dword, then high dword, each with its low byte first."""
    registers = bench.modern
    bench.driver().negotiate(bench.features)
    registers.write("queue_select", 0)
    registers.write("queue_desc", 0x1122_3344_5566_7000)
    raw = bench.function
    place = registers.common.offset + 0x20
    assert raw.bar_read(registers.common.bar, place, 4) == 0x5566_7000
    assert raw.bar_read(registers.common.bar, place + 4, 4) == 0x1122_3344


# The window


@rule("pci.cfgaccess.present")
def access_window_is_there(bench: Bench) -> None:
    """4.1.4.9.1."""
    _structures(bench, WINDOW)


def _aim(bench: Bench, offset: int, length: int) -> int:
    """Point the window at the common structure; where its data is."""
    window, common = _structures(bench, WINDOW)[0], bench.modern.common
    bench.function.write(window.at + 4, 1, common.bar)
    bench.function.write(window.at + 8, 4, common.offset + offset)
    bench.function.write(window.at + 12, 4, length)
    return window.at + 16


@rule("pci.cfgaccess.write")
def window_writes_a_bar(bench: Bench) -> None:
    """4.1.4.9.1."""
    bench.function.write(_aim(bench, 0, 4), 4, 1)  # device_feature_select
    assert bench.modern.read("device_feature_select") == 1
    bench.function.write(_aim(bench, 0x16, 2), 2, 0x1234)  # queue_select
    assert bench.modern.read("queue_select") == 0x1234


@rule("pci.cfgaccess.read")
def window_reads_a_bar(bench: Bench) -> None:
    """4.1.4.9.1."""
    bench.modern.write("device_feature_select", 0)
    shown = bench.function.read(_aim(bench, 4, 4), 4)
    assert shown == bench.modern.read("device_feature"), f"the window shows {shown:#x}"


@rule("d.pci.cfgaccess_len")
def window_takes_lengths_1_2_and_4(bench: Bench) -> None:
    """4.1.4.9."""
    bench.modern.write("queue_select", 0)
    for offset, length in ((0x14, 1), (0x12, 2), (0x18, 2), (0x04, 4)):
        expected = bench.modern.raw_read(offset, length)
        shown = bench.function.read(_aim(bench, offset, length), length)
        assert shown == expected, f"{length} bytes at {offset:#x}: {expected:#x}, by the window {shown:#x}"


# MSI-X


def _msix(bench: Bench) -> int:
    cap = bench.function.capability(CAP_MSIX)
    if cap is None:
        raise NotApplicable("no MSI-X")
    return cap.at


@rule("pci.msix.min")
def has_two_vectors_at_least(bench: Bench) -> None:
    """4.1.5.1.2.1."""
    _msix(bench)
    assert bench.function.vectors >= 2, f"{bench.function.vectors} vectors"


@rule("pci.msix.max", "pci.msix.table_size")
def msix_table_is_as_long_as_it_says_and_no_longer_than_it_may(bench: Bench) -> None:
    """4.1.5.1.2.1: and lies in its BAR, as the pending bits do."""
    at, function = _msix(bench), bench.function
    vectors = function.vectors
    assert vectors <= 0x800, f"{vectors} vectors"
    for register, length in ((at + 4, 16 * vectors), (at + 8, -(-vectors // 64) * 8)):
        place = function.read(register, 4)
        assert place & 7 in function.bars, f"there is no BAR {place & 7}"
        assert (place & ~7) + length <= function.bars[place & 7].size, "the MSI-X table ends outside its BAR"
