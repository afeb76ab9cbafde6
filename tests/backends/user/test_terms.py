"""Features of a device whose data another process moves: which of them it hears of."""

import pytest

from acrn_dm.backends.user.terms import KNOWN
from acrn_dm.testing.driver import VERSION_1
from acrn_dm.virtio import defs
from acrn_dm.virtio.features import EVENT_IDX, OFFERED_BY_PCI


@pytest.mark.parametrize("device_id", [defs.NET, defs.BLOCK, defs.CONSOLE])
def test_what_ends_at_the_registers_is_offered_whatever_the_back_end_has_and_never_told(device_id: int) -> None:
    terms = KNOWN[device_id]
    offered = terms.offer(VERSION_1 | EVENT_IDX | OFFERED_BY_PCI, VERSION_1, queues=2)
    assert offered & (EVENT_IDX | OFFERED_BY_PCI) == OFFERED_BY_PCI
    assert terms.told(offered) & OFFERED_BY_PCI == 0
    assert terms.needed_of_peer(offered) & OFFERED_BY_PCI == 0
