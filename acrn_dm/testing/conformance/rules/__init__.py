"""Rules of any virtio device: what sections 2 to 4 of the specification say, and what a device owes besides."""

from acrn_dm.testing.conformance.rule import rules_of
from acrn_dm.testing.conformance.rules import (
    capabilities,
    chains,
    common,
    config,
    features,
    hostile,
    isr,
    life,
    msix,
    notify,
    pause,
    ring,
    status,
)
from acrn_dm.testing.conformance.rules.reserved import in_order, notification_data, platform, queue_reset

RULES = rules_of(
    *(status, features, config, chains, ring, notify, hostile, capabilities, common, msix, isr, life, pause),
    *(queue_reset, notification_data, in_order, platform),
)
