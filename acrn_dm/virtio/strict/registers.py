"""The rules for a driver's register accesses: in which order it initializes a device (3.1.1), what it may write."""

from collections.abc import Callable

from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.layout import RingLayout
from acrn_dm.virtio import defs, features
from acrn_dm.virtio.core import VirtioCore
from acrn_dm.virtio.defs import Status
from acrn_dm.virtio.strict.report import StrictReport

STEPS = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK
READ_ONLY = ("device_feature", "num_queues", "config_generation", "queue_notify_off")
PLACES = ("queue_size", "queue_desc_lo", "queue_desc_hi", "queue_driver_lo", "queue_driver_hi")
QUEUE_FIELDS = frozenset({*PLACES, "queue_device_lo", "queue_device_hi"})
# Fields of 64 bits in the configuration spaces of section 5, by device id: where they begin.
WIDE_FIELDS = {defs.BLOCK: (0,), defs.VSOCK: (0,)}


class RegisterRules:
    """The rules of one device, told of every access before it has its effect, and of what reads returned. Under the
    function's lock.
    """

    def __init__(
        self, core: VirtioCore, report: StrictReport, msix_enabled: Callable[[], bool], *, legacy: bool
    ) -> None:
        self._core = core
        self._broken = report.broken
        self._msix_enabled = msix_enabled
        self._legacy = legacy
        self._was_reset = False
        self._awaits_reset = False  # 0 was written, and the status has not read 0 since
        self._unread = False  # FEATURES_OK was written, and the status not read since
        self._ending: set[int] = set()  # queues whose reset was asked for and has not been seen complete
        self._wide: int | None = None  # the field whose first half was read last
        self._generation_read = False  # by the last access
        self._wants_generation: int | None = None  # the field that was read, and the next access should read it

    # Reads

    def was_read(self, name: str, value: int) -> None:
        """The driver read register *name*, which showed *value*."""
        if name == "device_status":
            self._unread = False
            self._awaits_reset &= value != 0
        elif name == "queue_reset" and not value:
            self._ending.discard(self._core.queue_select)
        elif name.startswith("isr") and self._msix_enabled():
            self._broken("isr.msix", "reads the ISR status with MSI-X enabled")
        self._follow_generation(name)

    def config_read(self, offset: int, size: int) -> None:
        """The driver read *size* bytes of the device's configuration."""
        self._aligned(offset, size)
        before, self._wide = self._wide, None
        if self._legacy:
            return
        wide = WIDE_FIELDS.get(self._core.device_id, ())
        if offset in wide and size == 4:
            self._wide = offset if self._generation_read else None
            if not self._generation_read:
                self._broken("config.generation", f"reads the field at {offset} without config_generation before it")
        elif before is not None and (offset, size) == (before + 4, 4):
            self._wants_generation = before
        self._generation_read = False

    def _follow_generation(self, name: str) -> None:
        self._generation_read = name == "config_generation"
        field, self._wants_generation = self._wants_generation, None
        if field is not None and not self._generation_read:
            self._broken("config.generation", f"reads the field at {field} without config_generation after it")

    # Writes

    def is_written(self, name: str, value: int) -> None:
        """The driver writes *value* to register *name*."""
        self._follow_generation(name)
        if self._awaits_reset and name != "device_status":
            self._awaits_reset = False
            self._broken("reset.wait", f"writes {name} after a reset that it has not seen complete")
        if name in READ_ONLY:
            self._broken("common.read_only", f"writes {name}")
        elif name in (
            "device_status",
            "driver_feature",
            "driver_features",
            "queue_enable",
            "queue_size",
            "queue_reset",
        ):
            getattr(self, f"_{name}")(value)
        if name in QUEUE_FIELDS or name == "queue_enable":
            self._reset_was_seen(name)
        if name in QUEUE_FIELDS:
            self._queue_field(name)

    def config_written(self, offset: int, size: int) -> None:
        """The driver writes *size* bytes of the device's configuration."""
        self._aligned(offset, size)
        ready = Status.DRIVER if self._legacy else Status.FEATURES_OK
        if not self._core.status & ready:
            self._broken("config.early_write", f"writes byte {offset} of the configuration")

    def odd_access(self, offset: int, size: int) -> None:
        """The driver accesses *size* bytes at *offset* of the common configuration, where no register is like that."""
        self._broken("config.width", f"accesses {size} bytes at {offset:#x} of the common configuration")

    def notified(self, queue: int, size: int, value: int) -> None:
        """The driver notifies *queue* by writing *value*, of *size* bytes, to its place. Legacy drivers may do so early
        (3.1.2), and have another register for it.
        """
        core = self._core
        if not core.status & Status.DRIVER_OK:
            self._broken("notify.early", "notifies before DRIVER_OK", queue)
        if queue >= len(core.queues) or not core.status & Status.FEATURES_OK:
            return
        wanted = 4 if core.driver_features & features.NOTIFICATION_DATA else 2
        if size != wanted:
            self._broken("notify.width", f"notifies by {size} bytes instead of {wanted}", queue)
        elif value & 0xFFFF != queue:
            self._broken("notify.queue", f"notifies queue {queue} by {value:#x}", queue)

    def _device_status(self, value: int) -> None:
        if value == 0:
            self._was_reset, self._awaits_reset, self._unread = True, not self._legacy, False
            self._ending.clear()
            return
        self._reset_comes_first()
        if self._core.resetting:
            return  # the write is lost, and the status still the old one
        before, new = self._core.status, value & ~self._core.status & STEPS
        cleared = before & ~value & ~Status.NEEDS_RESET
        if cleared:
            self._broken("status.no_clear", f"clears {Status(cleared)!r} by writing {value:#x}")
        if before & Status.FAILED and new:
            self._broken("status.failed", f"sets {Status(new)!r} after FAILED")
        self._steps(before, value, Status(new))
        self._unread |= bool(new & Status.FEATURES_OK)

    def _reset_comes_first(self) -> None:
        if not self._was_reset:
            self._was_reset = True
            self._broken("status.reset_first", "begins without a reset")
        if self._awaits_reset:
            self._awaits_reset = False
            self._broken("reset.wait", "begins after a reset that it has not seen complete")

    def _steps(self, before: int, value: int, new: Status) -> None:
        done = before | value
        if new & Status.DRIVER and not done & Status.ACKNOWLEDGE:
            self._broken("status.acknowledge", "sets DRIVER without ACKNOWLEDGE")
        if new & (Status.FEATURES_OK | Status.DRIVER_OK) and not done & Status.DRIVER:
            self._broken("status.driver", f"sets {new!r} without DRIVER")
        if self._legacy:
            return
        if new & Status.FEATURES_OK:
            self._accepted()
        if new & Status.DRIVER_OK:
            if not before & Status.FEATURES_OK:
                self._broken("status.features_ok", "sets DRIVER_OK without FEATURES_OK")
            self._has_read_again("sets DRIVER_OK")

    def _accepted(self) -> None:
        """FEATURES_OK: what the driver has accepted is a whole."""
        core = self._core
        unmet = [feature.name for feature in features.unmet(core.device_id, core.driver_features)]
        if unmet:
            self._broken("features.requires", f"accepts {', '.join(unmet)} without what they require")
        if core.offered & ~core.driver_features & features.VERSION_1:
            self._broken("features.version_1", "does not accept VERSION_1")

    def _has_read_again(self, what: str) -> None:
        if self._unread:
            self._unread = False
            self._broken("status.reread", f"{what} without having read the status after FEATURES_OK")

    def _driver_feature(self, value: int) -> None:
        core, word = self._core, self._core.driver_feature_select
        offered = core.offered >> 32 * word & 0xFFFF_FFFF if word < 4 else 0
        self._check_features(value, offered, 32 * word)

    def _driver_features(self, value: int) -> None:
        self._check_features(value, self._core.legacy_offered, 0)

    def _check_features(self, value: int, offered: int, shift: int) -> None:
        if value & ~offered:
            names = features.names(self._core.device_id, (value & ~offered) << shift)
            self._broken("features.offered", f"accepts {names}")
        if self._core.status & Status.FEATURES_OK:
            self._broken("features.frozen", "writes feature bits after FEATURES_OK")

    def _queue_enable(self, value: int) -> None:
        core, queue = self._core, self._core.selected
        self._has_read_again("enables a queue")
        if value != 1:
            self._broken("queue.enable_0", f"writes {value} to queue_enable", core.queue_select)
        if core.status & Status.DRIVER_OK and not (queue and queue.renewable):
            self._broken("queue.late", "enables a queue after DRIVER_OK", core.queue_select)
            return
        if queue is None or value != 1:
            return
        if not (queue.desc and queue.avail and queue.used):
            self._broken("queue.order", "enables a queue before it has told all addresses", queue.index)
        layout = RingLayout(size=queue.size, desc=queue.desc, avail=queue.avail, used=queue.used)
        for part in ring_format(core.driver_features).parts(layout):
            if part.gpa % part.alignment:
                self._broken("queue.alignment", f"puts the {part.name} at {part.gpa:#x}", queue.index)

    def _queue_reset(self, value: int) -> None:
        core = self._core
        if value != 1:
            self._broken("queue.reset_0", f"writes {value} to queue_reset", core.queue_select)
        elif not core.driver_features & features.RING_RESET:
            self._broken("queue.reset_feature", "resets a queue without RING_RESET", core.queue_select)
        else:
            self._ending.add(core.queue_select)

    def _reset_was_seen(self, name: str) -> None:
        queue = self._core.queue_select
        if queue in self._ending:
            self._ending.discard(queue)
            self._broken("queue.reset_wait", f"writes {name} after a queue reset not seen complete", queue)

    def _queue_size(self, value: int) -> None:
        if not self._legacy and not ring_format(self._core.driver_features).takes_size(value):
            self._broken("queue.size", f"writes queue size {value}", self._core.queue_select)

    def _queue_field(self, name: str) -> None:
        queue = self._core.selected
        if queue is not None and queue.enabled and not self._legacy:
            self._broken("queue.order", f"writes {name} of a queue that is enabled", queue.index)

    def _aligned(self, offset: int, size: int) -> None:
        if not self._legacy and (offset % size or size > 4):
            self._broken("config.width", f"accesses {size} bytes at {offset} of the device's configuration")
