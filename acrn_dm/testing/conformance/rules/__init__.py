"""Rules of any virtio device: what sections 2 to 4 of the specification say, and what a device owes besides."""

from acrn_dm.testing.conformance.rule import rules_of
from acrn_dm.testing.conformance.rules import features, life

RULES = rules_of(features, life)
