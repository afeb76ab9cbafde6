"""Addresses that the platform may translate (virtio 6, ACCESS_PLATFORM)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.virtio.features import ACCESS_PLATFORM


@rule("rsvd.access_platform.required", needs=("ACCESS_PLATFORM",))
def device_works_or_refuses_where_access_platform_is_not_accepted(bench: Bench) -> None:
    """6.2: a device may refuse FEATURES_OK then; one that does not finds the buffers all the same."""
    for accepted in (bench.features | ACCESS_PLATFORM, bench.features & ~ACCESS_PLATFORM):
        driver = bench.driver()
        if driver.negotiate(accepted):
            driver = bench.restart(driver, accepted)
            bench.answering(driver)
            bench.exchange_all(driver)
