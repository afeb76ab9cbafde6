"""The clauses that a driver is held to: requirements of virtio 1.4 on drivers that a device can see broken.

``level`` is the keyword of the specification; DESC is what it states as plain fact.
"""

from acrn_dm.base.records import frozen


@frozen
class Clause:
    """One requirement: our id for it, the section of virtio 1.4, its keyword, and what the driver has to do."""

    id: str
    section: str
    level: str
    text: str


_INIT = "3.1.1"  # Driver Requirements: Device Initialization
_COMMON = "4.1.4.3.2"  # Driver Requirements: Common configuration structure layout
_INDIRECT = "2.7.5.3.1"  # Driver Requirements: Indirect Descriptors

_PACKED = "2.8.16"  # Driver Requirements: The Virtqueue Descriptor Table
_LISTS = "2.8.17"  # Driver Requirements: Scatter-Gather Support
_TABLES = "2.8.19"  # Driver Requirements: Indirect Descriptors

_ALL = (
    Clause("status.no_clear", "2.1.1", "MUST NOT", "clear a bit of the device status"),
    Clause("status.failed", "2.1.1", "MUST", "reset the device after FAILED, before it initializes it again"),
    Clause("status.reset_first", _INIT, "MUST", "reset the device first"),
    Clause("status.acknowledge", _INIT, "MUST", "set ACKNOWLEDGE before DRIVER"),
    Clause("status.driver", _INIT, "MUST", "set DRIVER before FEATURES_OK and DRIVER_OK"),
    Clause("status.features_ok", _INIT, "MUST", "set FEATURES_OK, and see it accepted, before DRIVER_OK"),
    Clause("status.reread", _INIT, "MUST", "read the status again after FEATURES_OK"),
    Clause("reset.wait", _COMMON, "MUST", "wait until the status reads 0 after writing 0"),
    Clause("features.offered", "2.2.1", "MUST NOT", "accept a feature that was not offered"),
    Clause("features.requires", "2.2.1", "MUST NOT", "accept a feature without one that it requires"),
    Clause("features.frozen", _INIT, "MUST NOT", "accept new feature bits after FEATURES_OK"),
    Clause("features.version_1", "6.1", "MUST", "accept VERSION_1 where it is offered"),
    Clause("config.early_write", _INIT, "MUST NOT", "write the device's configuration before FEATURES_OK"),
    Clause("config.generation", "2.5.1", "SHOULD", "read config_generation around a field wider than 32 bits"),
    Clause("config.width", "4.1.3.1", "MUST", "access registers in their width, aligned, 64-bit ones as two"),
    Clause("common.read_only", _COMMON, "MUST NOT", "write device_feature, num_queues, config_generation, notify_off"),
    Clause("queue.size", _COMMON, "MUST NOT", "write a queue size that is no power of 2"),
    Clause("queue.enable_0", _COMMON, "MUST NOT", "write 0 to queue_enable"),
    Clause("queue.order", _COMMON, "MUST", "configure a queue's other fields before it enables it"),
    Clause("queue.late", _INIT, "MUST", "set its queues up before DRIVER_OK"),
    Clause("queue.reset_0", _COMMON, "MUST NOT", "write 0 to queue_reset"),
    Clause("queue.reset_feature", "4.1.4.3", "DESC", "write queue_reset only with RING_RESET"),
    Clause("queue.reset_wait", _COMMON, "MUST", "see queue_reset read 0 before it sets a queue up again"),
    Clause("queue.alignment", "2.7.1", "MUST", "align descriptor table, available and used ring to 16, 2 and 4 bytes"),
    Clause("notify.early", _INIT, "MUST NOT", "notify the device before DRIVER_OK"),
    Clause("notify.width", "4.1.5.2", "DESC", "notify by 16 bits, with NOTIFICATION_DATA by 32"),
    Clause("notify.queue", "4.1.5.2", "DESC", "name the queue that it notifies"),
    Clause("isr.msix", "4.1.4.5.2", "SHOULD NOT", "read the ISR status while MSI-X is enabled"),
    Clause("avail.decrement", "2.7.6.1", "MUST NOT", "decrement the available index"),
    Clause("avail.too_many", "2.7.6", "DESC", "make no more chains available than the queue has descriptors"),
    Clause("avail.head", "2.7.6", "DESC", "make heads available that are in the descriptor table"),
    Clause("avail.flags", "2.7.7.1", "MUST", "set the available ring's flags to 0 or 1"),
    Clause("avail.flags_event_idx", "2.7.7.1", "MUST", "set the available ring's flags to 0 with EVENT_IDX"),
    Clause("used.flags", "2.7.10.1", "MUST", "set the used ring's flags to 0 when it allocates the ring"),
    Clause("desc.write_order", "2.7.4.2", "MUST", "place device-writable buffers behind device-readable ones"),
    Clause("desc.loop", "2.7.5.2", "MUST NOT", "make a chain that comes back to one of its descriptors"),
    Clause("desc.total", "2.7.5.2", "MUST NOT", "make a chain of more than 2^32 bytes"),
    Clause("desc.next", "2.7.5", "DESC", "chain descriptors of the same table"),
    Clause("desc.address", "6.1", "MUST", "give physical addresses of its memory"),
    Clause("desc.in_order", "2.7.9", "DESC", "use descriptors in the order of the table with IN_ORDER, around it"),
    Clause("desc.in_flight", "3.3.1", "MUST NOT", "use a descriptor of a chain that the device has"),
    Clause("desc.altered", "3.3.1", "MUST NOT", "alter descriptors that the device has"),
    Clause("indirect.negotiated", _INDIRECT, "MUST NOT", "use an indirect table without INDIRECT_DESC"),
    Clause("indirect.nested", _INDIRECT, "MUST NOT", "use an indirect table in an indirect table"),
    Clause("indirect.next", _INDIRECT, "MUST NOT", "set both INDIRECT and NEXT"),
    Clause("indirect.length", "2.7.5.3", "DESC", "make an indirect table of whole descriptors, one at least"),
    Clause("indirect.too_long", _INDIRECT, "MUST NOT", "make a chain longer than the queue size"),
    Clause("packed.zeroed", "2.8.13", "DESC", "clear the descriptor ring when it allocates the ring"),
    Clause("packed.altered", _PACKED, "MUST NOT", "change a descriptor after its AVAIL bit, before its USED bit"),
    Clause("packed.too_many", _LISTS, "MUST", "make no list available that the ring has no room for"),
    Clause("packed.list", _LISTS, "MUST NOT", "make a list's first descriptor available before the others are"),
    Clause("packed.too_long", _LISTS, "MUST NOT", "make a list longer than the queue size"),
    Clause("packed.id", "2.8.21.1", "DESC", "give a buffer an id that no buffer of the device's has"),
    Clause("packed.indirect_list", _TABLES, "MUST NOT", "use an indirect descriptor in a list that NEXT links"),
    Clause("packed.indirect_flags", _TABLES, "MUST NOT", "set flags other than WRITE in an indirect table"),
    Clause("packed.event_reserved", "2.8.14", "DESC", "set the reserved bits of its event flags to 0"),
    Clause("packed.event_flags", "2.8.10", "DESC", "ask for events by 0 or 1, by 2 only with EVENT_IDX"),
    Clause("packed.event_off", "2.8.10", "DESC", "ask for the event of a descriptor that is in the ring"),
)

CLAUSES = {clause.id: clause for clause in _ALL}
