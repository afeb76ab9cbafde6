"""Rules that only devices of one kind are judged by; what the world beyond them shows comes from an ``Outside``."""

from acrn_dm.testing.conformance.kinds import balloon, entropy, gpio, i2c, input
from acrn_dm.testing.conformance.kinds.blk import cache, ranges, requests
from acrn_dm.testing.conformance.kinds.blk import configuration as blk_configuration
from acrn_dm.testing.conformance.kinds.console import rules as console_rules
from acrn_dm.testing.conformance.kinds.net import (
    coalescing,
    control,
    filters,
    hashes,
    multiqueue,
    offloads,
    receive,
    transmit,
)
from acrn_dm.testing.conformance.kinds.net import configuration as net_configuration
from acrn_dm.testing.conformance.kinds.vsock import rules as vsock_rules
from acrn_dm.testing.conformance.rule import rules_of

RULES = rules_of(
    *(net_configuration, transmit, receive, offloads, control, filters, multiqueue, coalescing, hashes),
    *(blk_configuration, requests, ranges, cache),
    *(console_rules, entropy, vsock_rules, input, gpio, i2c, balloon),
)
