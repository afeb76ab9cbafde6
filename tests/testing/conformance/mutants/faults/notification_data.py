"""Faults of kicks with data, and of what the platform does to addresses."""

from tests.testing.conformance.mutants.faults.fault import fault

CAPS, MODERN = "virtio.pci.caps", "virtio.pci.modern"
DATA = "d.notif.data"

FAULTS = (
    fault(
        MODERN,
        "notify registers are two bytes apart",
        "NOTIFY_MULTIPLIER = 4\n",
        "NOTIFY_MULTIPLIER = 2\n",
        ("pci.notify.nd.multiplier",),
    ),
    fault(
        MODERN,
        "notifications begin at an odd word",
        "NOTIFY_OFFSET = 0x3000\n",
        "NOTIFY_OFFSET = 0x3002\n",
        ("pci.notify.nd.offset_align4",),
    ),
    fault(
        CAPS,
        "the last queue has room for two bytes",
        "notify_size = queues * modern.NOTIFY_MULTIPLIER",
        "notify_size = queues * modern.NOTIFY_MULTIPLIER - 2",
        ("pci.notify.nd.len_all", "pci.notify.nd.len_min4"),
    ),
    fault(
        MODERN,
        "kicks of four bytes are lost in the registers",
        "        elif region == NOTIFY_OFFSET:\n",
        "        elif region == NOTIFY_OFFSET and size == 2:\n",
        (DATA, "d.notif.data.split", "d.notif.repeat"),
    ),
    fault(
        MODERN,
        "a kick is taken by its value",
        "            self._core.notify(inner // NOTIFY_MULTIPLIER)\n",
        "            self._core.notify(value)\n",
        (DATA, "d.notif.data.split", "d.notif.repeat"),
    ),
    fault(
        MODERN,
        "a kick with bit 31 counts for nothing",
        "            self._core.notify(inner // NOTIFY_MULTIPLIER)\n",
        "            self._core.notify(inner // NOTIFY_MULTIPLIER if value >> 31 == 0 else 0xFFFF)\n",
        ("d.notif.data.split",),
    ),
    fault(
        MODERN,
        "all queues have one name",
        'Register("queue_notif_config_data", 0x38, 2, _queue(lambda q: q.index))',
        'Register("queue_notif_config_data", 0x38, 2, _queue(lambda q: 7))',
        ("d.pci.notif_config_data",),
    ),
)
