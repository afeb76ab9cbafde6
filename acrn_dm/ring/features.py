"""Feature bits that change what is in a ring (virtio 1.4, 6)."""

INDIRECT_DESC = 1 << 28
EVENT_IDX = 1 << 29
PACKED = 1 << 34
IN_ORDER = 1 << 35
