"""Feature negotiation (2.2, 6)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import ACKNOWLEDGE, DRIVER, FEATURES_OK, NEEDS_RESET, VERSION_1
from acrn_dm.testing.register_access import FEATURE_WORDS
from acrn_dm.virtio import features

SR_IOV = 1 << 37


@rule("feat.offer_deps")
def offers_nothing_without_its_prerequisites(bench: Bench) -> None:
    """2.2.1."""
    unmet = [f.name for f in features.unmet(bench.device_id, bench.offered)]
    assert not unmet, f"offers {unmet} without prerequisites"


@rule("feat.no_unsupported_bits")
def offers_no_bit_that_nobody_defined(bench: Bench) -> None:
    """2.2: those of the device type, and of the reserved ones those that the transport has."""
    ours = features.OFFERED_BY_TRANSPORT | features.OFFERED_BY_PCI | features.IN_ORDER | features.PACKED
    allowed = features.DEVICE_BITS | ours
    if bench.device_id in features.DEVICE_TABLES:
        allowed = ours | sum(f.mask for f in features.DEVICE_TABLES[bench.device_id])
    unknown = features.names(bench.device_id, bench.offered & ~allowed)
    assert not unknown, f"offers {unknown}"


@rule("feat.accept_valid_subset", over=("pairs",))
def starts_with_every_valid_subset(bench: Bench) -> None:
    """2.2.1: none, all, each bit alone, all but each; what a bit requires, and what is mandatory, comes with it."""
    offered = bench.offered
    least = features.MANDATORY.get(bench.device_id, 0)
    bits = [1 << bit for bit in range(offered.bit_length()) if offered >> bit & 1]
    alone = {_closed(bench.device_id, bit, offered) for bit in bits}
    without = {features.prune(bench.device_id, offered & ~bit) for bit in bits}
    driver = bench.driver()
    for subset in [least, offered, *sorted({it | least for it in alone | without}), least, offered]:
        said = features.names(bench.device_id, subset)
        assert driver.negotiate(subset), f"refuses {said}"
        bench.restart(driver, subset)
        assert not driver.status & NEEDS_RESET, f"fails with {said}"


def _closed(device_id: int, wanted: int, offered: int) -> int:
    """*wanted* and, where it lacks something, of all *offered* what does not lack anything without it."""
    for _ in range(8):
        broken = features.unmet(device_id, wanted)
        if not broken:
            return wanted
        wanted |= sum({1 << alternatives[0] for f in broken for alternatives in f.requires}) & offered
    return features.prune(device_id, wanted)


@rule("feat.reject_bad_subset")
def refuses_what_it_does_not_offer_and_broken_dependencies(bench: Bench) -> None:
    """2.2.1: FEATURES_OK reads back clear."""
    driver = bench.driver()
    for bit in range(128):
        if not bench.offered >> bit & 1:
            assert driver.negotiate(1 << bit) == 0, f"accepts bit {bit}, which it does not offer"
            assert not driver.status & FEATURES_OK
    for select in (4, 5, 0xFFFF_FFFF):  # words whose bits nobody has defined
        _accept_beyond(bench, select)
        assert not driver.status & FEATURES_OK, f"accepts a bit of word {select:#x}"
    for feature in features.table(bench.device_id):
        if feature.requires and bench.offered & feature.mask and feature.bit != 32:
            alone = feature.mask | VERSION_1
            if features.unmet(bench.device_id, alone):
                assert driver.negotiate(alone) == 0, f"accepts {feature.name} without what it requires"


def _accept_beyond(bench: Bench, select: int) -> None:
    """All that is offered, and a bit more."""
    driver = bench.driver()
    driver.reset()
    driver.status = ACKNOWLEDGE | DRIVER
    driver.registers.accept(bench.offered)
    bench.modern.write("driver_feature_select", select)
    bench.modern.write("driver_feature", 1)
    driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK


@rule("feat.renegotiate_same")
def accepts_the_same_features_again(bench: Bench) -> None:
    """2.2.1: after a reset of the device and one of the system."""
    driver = bench.driver()
    for _ in range(3):
        assert driver.negotiate(bench.offered) == bench.offered, "refuses what it accepted before"
        driver.reset()
    bench.machine.reset()
    driver = bench.driver()
    assert driver.negotiate(bench.offered) == bench.offered, "refuses after a system reset what it accepted before"


@rule("d.feat.renegotiate_only_by_reset")
def keeps_features_once_they_are_agreed(bench: Bench) -> None:
    """2.2: what is written after FEATURES_OK changes nothing."""
    driver = bench.driver()
    driver.negotiate()
    before = _accepted(bench)
    driver.registers.accept(0)
    assert _accepted(bench) == before, "driver_feature changed after FEATURES_OK"
    bench.restart(driver)
    before = _accepted(bench)
    driver.registers.accept(0)
    assert _accepted(bench) == before, "driver_feature changed after DRIVER_OK"


def _accepted(bench: Bench) -> int:
    words = 0
    for select in range(FEATURE_WORDS):
        bench.modern.write("driver_feature_select", select)
        words |= bench.modern.read("driver_feature") << 32 * select
    return words


@rule("rsvd.version_1.offer")
def offers_version_1(bench: Bench) -> None:
    """6.1."""
    assert bench.offered & VERSION_1, "VERSION_1 is not offered"


@rule("rsvd.version_1.required")
def refuses_or_serves_a_driver_without_version_1(bench: Bench) -> None:
    """6.2 leaves the choice; what it can't be is FEATURES_OK for a driver that a modern device then does not serve."""
    driver = bench.driver()
    driver.reset()
    driver.status = ACKNOWLEDGE | DRIVER
    driver.registers.accept(0)
    driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK
    if not driver.status & FEATURES_OK:
        return
    if not bench.legacy:
        raise AssertionError("accepts a driver without VERSION_1 and has no legacy interface")


@rule("rsvd.sriov.absent")
def offers_no_sr_iov(bench: Bench) -> None:
    """6.1: there is no such capability in a function on this bus."""
    assert not bench.offered & SR_IOV, "SR_IOV is offered without its capability"


@rule("legacy.feat.bit30", transport="legacy")
def does_not_negotiate_bit_30(bench: Bench) -> None:
    """6.3: set by a driver it means nothing."""
    driver = bench.driver()
    if driver.registers.offered() >> 30 & 1:
        raise AssertionError("offers bit 30")
    driver.start(bench.features | 1 << 30, queues=bench.queues(driver))
    assert not driver.registers.read("driver_features") >> 30 & 1, "bit 30 was negotiated"
    bench.exchange_all(driver)


@rule("legacy.feat.any_layout", transport="legacy")
def offers_any_layout_to_legacy_drivers(bench: Bench) -> None:
    """6.3, and what it promises: header and data of a request may share a buffer."""
    assert bench.offered & features.ANY_LAYOUT, "ANY_LAYOUT is not offered"


@rule("pci.legacy.features_hi", transport="legacy")
def forgets_the_high_features_of_a_modern_driver(bench: Bench) -> None:
    """4.1.4.8: a legacy driver that follows a modern one has accepted none of them."""
    modern = bench.machine.driver(3, msix=False)
    if modern.start() >> 32 == 0:
        raise NotApplicable("nothing is offered above bit 31")
    modern.reset()
    driver = bench.start()
    bench.exchange_all(driver)
    assert not _accepted(bench) >> 32, "high feature bits of the last driver are still there"
