"""Rules of PCI functions that are no virtio devices: configuration space, BARs, interrupts, reset, data they move."""

from acrn_dm.testing.conformance.functions import bars, configuration, interrupts, life
from acrn_dm.testing.conformance.rule import rules_of

RULES = rules_of(configuration, bars, interrupts, life)
