"""Feature negotiation (2.2, 6)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import FEATURES_OK
from acrn_dm.virtio import features


@rule("feat.offer_deps")
def offers_nothing_without_its_prerequisites(bench: Bench) -> None:
    """2.2.1."""
    unmet = [f.name for f in features.unmet(bench.device_id, bench.offered)]
    assert not unmet, f"offers {unmet} without prerequisites"


@rule("feat.reject_bad_subset")
def refuses_what_it_does_not_offer(bench: Bench) -> None:
    """2.2.1: FEATURES_OK reads back clear."""
    driver = bench.driver()
    for bit in range(128):
        if not bench.offered >> bit & 1:
            assert driver.negotiate(1 << bit) == 0, f"accepts bit {bit}, which it does not offer"
            assert not driver.status & FEATURES_OK
