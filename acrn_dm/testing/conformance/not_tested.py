"""Rows that no rule decides, each with its reason: by id, or by the beginning of ids (``admin.*``)."""

from collections.abc import Mapping

from acrn_dm.testing.conformance.kinds import unjudged
from acrn_dm.testing.conformance.report import Outcome, Verdict
from acrn_dm.testing.conformance.table import Row

# What this device model does not have: no device offers it, so no device can be judged by it.
NOT_IMPLEMENTED: Mapping[str, str] = {
    "admin.*": "no administration virtqueues",
    "packed.*": "no packed rings",
    "d.packed.*": "no packed rings",
    "suspend.*": "SUSPEND (1.4) is not offered",
    "vqreset.*": "RING_RESET is not offered",
    **unjudged.NOT_IMPLEMENTED,
}
# What can't be seen from here, or binds somebody else.
NOT_TESTABLE: Mapping[str, str] = {**unjudged.NOT_TESTABLE}


def find(row: Row, table: Mapping[str, str]) -> str | None:
    """The reason that *table* has for *row*."""
    if row.id in table:
        return table[row.id]
    return next((why for key, why in table.items() if key.endswith("*") and row.id.startswith(key[:-1])), None)


def why_not(row: Row) -> Verdict:
    """The verdict on a row that no rule decides."""
    why = find(row, NOT_TESTABLE)
    if why is not None:
        return Verdict(row=row, outcome=Outcome.NOT_APPLICABLE, text=why)
    return Verdict(row=row, outcome=Outcome.NOT_IMPLEMENTED, text=find(row, NOT_IMPLEMENTED) or "no rule yet")
