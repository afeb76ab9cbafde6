"""Rules whose check is that of a split ring's row: where descriptors are makes no difference to it."""

import attrs

from acrn_dm.testing.conformance.rule import Rule
from acrn_dm.testing.conformance.rules import chains
from acrn_dm.testing.conformance.setup import PACKED


def _twin(rule: Rule, *ids: str) -> Rule:
    return attrs.evolve(rule, ids=ids, over=(), pinned={"ring": PACKED})


WRITES_TO_NO_READABLE_BUFFER = _twin(chains.writes_to_no_readable_buffer, "packed.desc.no_write_readable")
DOES_NOT_LOOK_AT_WRITABLE_BUFFERS = _twin(
    chains.does_not_look_at_what_writable_buffers_hold, "packed.desc.no_read_writable"
)
WROTE_AS_MANY_BYTES_AS_IT_CLAIMS = _twin(chains.wrote_as_many_bytes_as_it_claims, "d.packed.used_len")
