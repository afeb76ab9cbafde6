"""Rules of packed rings (virtio 1.4, 2.8). Those of split ones stand in ``conformance.rules``, with what both have."""

from acrn_dm.testing.conformance.rings import descriptors, lists, places, suppression, twins
from acrn_dm.testing.conformance.rule import rules_of

RULES = rules_of(places, descriptors, lists, suppression, twins)
