"""Rules of PCI functions, virtio devices or not."""

from acrn_dm.testing.conformance.rule import Rule

RULES: tuple[Rule, ...] = ()
