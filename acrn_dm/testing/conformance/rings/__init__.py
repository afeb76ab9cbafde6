"""Rules of packed rings (virtio 1.4, 2.8). Those of split ones stand in ``rules``, beside what is for both."""

from acrn_dm.testing.conformance.rings import descriptors, lists, places, suppression, twins
from acrn_dm.testing.conformance.rule import rules_of

RULES = rules_of(places, descriptors, lists, suppression, twins)
