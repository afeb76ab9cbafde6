"""Faults of packed rings in the product."""

from tests.testing.conformance.mutants.faults.fault import fault

FORMAT, LAYOUT = "ring.packed.format", "ring.packed.layout"

FAULTS = (
    fault(
        FORMAT,
        "a packed ring does not know EVENT_IDX",
        "            device=layout.used,\n            event_idx=bool(features & EVENT_IDX),\n",
        "            device=layout.used,\n            event_idx=False,\n",
        ("d.packed.event_desc",),
    ),
    fault(
        FORMAT,
        "a packed ring has EVENT_IDX, negotiated or not",
        "            device=layout.used,\n            event_idx=bool(features & EVENT_IDX),\n",
        "            device=layout.used,\n            event_idx=True,\n",
        ("d.packed.event_desc_needs_feature",),
    ),
    fault(
        FORMAT,
        "packed rings refuse indirect tables",
        "indirect=bool(features & INDIRECT_DESC)",
        "indirect=False",
        ("d.packed.indirect_seq", "d.packed.indirect_write_ign", "d.packed.mixed"),
    ),
    fault(
        FORMAT,
        "a packed ring begins at its first descriptor, wherever it was",
        "next_avail=position.base & 0xFFFF,\n            next_used=position.base >> HALF",
        "next_avail=WRAP,\n            next_used=WRAP",
        ("dm.pause",),
    ),
    fault(
        FORMAT,
        "packed rings have to be powers of two",
        "return 0 < size <= MAX_QUEUE_SIZE",
        "return 0 < size <= MAX_QUEUE_SIZE and size & (size - 1) == 0",
        ("d.packed.size_any", "d.packed.wrap_init", "packed.used_write_order", "d.packed.used_flags"),
    ),
    fault(
        LAYOUT,
        "event suppression structures have to stand at multiples of 8",
        'RingPart(name="driver event suppression", gpa=layout.avail, length=event, alignment=4)',
        'RingPart(name="driver event suppression", gpa=layout.avail, length=event, alignment=8)',
        ("d.packed.align",),
    ),
)
