"""The rows of packed rings, RING_RESET, IN_ORDER and NOTIFICATION_DATA: each is a test of its name here.

What a rule decides is judged on a device that is right, in the formats that the row is about, and the rule has been
seen to fail: a mutant breaks it. What no device shows is kept by a test of the ring, which has the row in its name.
"""

import pytest

from acrn_dm.testing.conformance import RULES, Outcome
from acrn_dm.testing.conformance.report import Verdict
from acrn_dm.testing.conformance.run import judge
from acrn_dm.testing.conformance.setup import FORMATS
from acrn_dm.testing.conformance.table import rows
from tests.named_tests import all_tests
from tests.testing.conformance.mutants import score
from tests.testing.conformance.mutants.builds import subject
from tests.testing.conformance.mutants.right import Right
from tests.testing.conformance.mutants.wrong.in_order import InOrder, PackedInOrder

FEATURES = {f"VIRTIO_F_{name}" for name in ("RING_RESET", "IN_ORDER", "NOTIFICATION_DATA", "NOTIF_CONFIG_DATA")}
PACKED = [row.id for row in rows().values() if "VIRTIO_F_RING_PACKED" in row.feature.split("+")]
OTHERS = [row.id for row in rows().values() if FEATURES & set(row.feature.split("+")) and row.id not in PACKED]
OTHERS.remove("net.rss.reset_drop")  # ``kinds/test_net_hashes.py`` has it with a fault of its own
RULED = {row: rule for rule in RULES for row in rule.ids}
NOT_OFFERED = {"net.ff.reset_drop"}  # until a card offers flow filters
BY_THE_RING = {"packed.used_write_reorder", "d.packed.multi_buffer", "d.packed.next_reserved_used"}


class Ordered(Right):
    """Keeps order by itself."""

    in_order = True


DEVICES = {  # those that have to offer IN_ORDER
    "rsvd.in_order": Ordered,
    "d.split.inorder_batch": InOrder,
    "d.split.inorder_skipped": InOrder,
    "d.packed.inorder_batch": PackedInOrder,
}


def outcome(row: str) -> Verdict:
    """What a right device comes to."""
    rule = RULED[row]
    made = subject("net pairs" if row.startswith("net.") else "sample", "", DEVICES.get(row))
    made.formats = (rule.pinned["ring"],) if "ring" in rule.pinned else FORMATS
    try:
        made.look()
        return judge(made, rule).outcome(rows()[row], {})
    finally:
        if hasattr(made.outside, "close"):
            made.outside.close()


@pytest.mark.parametrize("row", [row for row in (*PACKED, *OTHERS) if row in RULED])
def test_row_is_kept_by_a_right_device(row: str) -> None:
    verdict = outcome(row)
    assert verdict.outcome is Outcome.PASSED, verdict.text


def test_rule_of_each_row_has_a_mutant() -> None:
    broken = {row for mutant in (*score.wrong_devices(), *score.FAULTS) for row in mutant.rows}
    assert [row for row in (*PACKED, *OTHERS) if row in RULED and not broken & set(RULED[row].ids)] == []


@pytest.mark.parametrize("row", [row for row in (*PACKED, *OTHERS) if row not in RULED])
def test_row_that_no_device_shows_is_kept_by_a_test_of_the_ring(row: str) -> None:
    name = f"test_{row.replace('.', '_')}"
    named = [test for test in all_tests() if test.name.startswith(name) and row in test.docstring]
    assert bool(named) == (row in BY_THE_RING) != (row in NOT_OFFERED)


def test_there_are_31_rows_of_packed_rings() -> None:
    assert len(PACKED) == 31
