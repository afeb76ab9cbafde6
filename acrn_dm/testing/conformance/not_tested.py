"""Rows that no rule decides, each with its reason: by id, or by the beginning of ids (``admin.*``)."""

from collections.abc import Mapping

from acrn_dm.testing.conformance.kinds import unjudged
from acrn_dm.testing.conformance.report import Outcome, Verdict
from acrn_dm.testing.conformance.table import Row

PERMISSION = "a permission: no choice of a device's breaks it"
TWO_WRITES = "the order of two writes shows only to a second processor that looks in between"
BIG_ENDIAN = "shows only to a guest whose processor is big-endian"

# What this device model does not have: no device offers it, so no device can be judged by it.
NOT_IMPLEMENTED: Mapping[str, str] = {
    "admin.*": "no administration virtqueues",
    "suspend.*": "SUSPEND (1.4) is not offered",
    "pci.common.admin_queue_*": "no administration virtqueues",
    "d.pci.notify_shared": "the transport gives each queue a place of its own (multiplier 4)",
    "pci.shm.*": "no shared memory regions",
    "shm.*": "no shared memory regions",
    "pci.vendor.*": "no vendor data capabilities",
    "pci.nontrans.*": "a device without a legacy interface has no I/O BAR",
    "rsvd.sriov.offer": "no function has an SR-IOV capability",
    "legacy.feat.notify_on_empty": "NOTIFY_ON_EMPTY is not offered",
    **unjudged.NOT_IMPLEMENTED,
}
# What can't be seen from here, or what no device can break.
NOT_TESTABLE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("legacy.optional", "legacy.feat.notify_on_empty.offer", "framing.limit", "pci.intr.shared"),
            *("split.desc.read_writable_debug", "split.used.may_exceed_len", "split.avail.immediate_access"),
            *("split.avail_notify.may_suppress", "pci.id.transitional_range", "pci.id.subsystem"),
            *("pci.cap.len_padding", "pci.cap.length_padding", "pci.cap.extra", "pci.cap.multiple"),
            *("pci.common.driver_feature_invalid", "rsvd.order_platform.required", "rsvd.order_platform.slow"),
            "packed.used_write_reorder",
        ),
        PERMISSION,
    ),
    "legacy.follow_sections": "what the rows called legacy say, one by one",
    "split.legacy.endian": BIG_ENDIAN,
    "d.pci.legacy.endian": BIG_ENDIAN,
    "export.uuid_v4": "no device exports objects",
    "rsvd.access_platform.offer": "whether addresses are translated does not show; unless switched off it is offered",
    "rsvd.addin_card": "binds cards of hardware",
    "split.used.len_before_idx": TWO_WRITES,
    "d.packed.multi_buffer": TWO_WRITES,
    "d.packed.next_reserved_used": "reserved: drivers ignore it, whatever a device leaves there",
    "pci.cap.order": "which of several structures is the best one does not show; there is one of each",
    "pci.msix.table_size_hint": "which size serves performance does not show",
    **unjudged.NOT_TESTABLE,
}


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
