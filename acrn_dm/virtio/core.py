"""A virtio device's registers and the rules of its life, whatever the transport (spec 2.1, 3.1, 4.1.4.3).

Register structures (``modern``, ``legacy``) are views of this state. All methods run on a control thread under the
function's lock, except where said otherwise. Queues and interrupts are the ``CoreHost``'s.

Rules about queue registers: size and addresses can be written until the queue is enabled or the device runs, then only
a reset frees them, the device's or the queue's own (2.6.1). Vectors can be changed at any time: they choose an
interrupt and no memory, and drivers do move them.
"""

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.layout import legacy_ring_addresses
from acrn_dm.virtio import features
from acrn_dm.virtio.defs import NO_VECTOR, Status
from acrn_dm.virtio.queue_config import QueueConfig
from acrn_dm.virtio.status import next_status

log = logging.getLogger(__name__)

FEATURE_WORDS = 4  # 2.2: feature bits 0 to 127
WORD = 0xFFFF_FFFF
MAX_UNKNOWN_WORDS = 64  # past the last one: as many as are remembered
TOO_MANY = -1  # stands for the others


class CoreHost(Protocol):
    """The transport, as far as the core needs it."""

    def refusal(self, features: int) -> str | None:
        """Why the device refuses *features* that break no general rule. Never raises."""

    def negotiated(self) -> None:
        """FEATURES_OK was accepted: the driver's features are fixed. Never raises."""

    def start_queues(self) -> None:
        """DRIVER_OK: let the backend run the enabled queues. Raises what that raises; then nothing is left half-way."""

    def cancel_queues(self) -> None:
        """Reset: no kick is taken any more, what is in flight is given up. Does not wait. Idempotent; never raises."""

    def queues_busy(self) -> bool:
        """Whether something in flight may still use guest memory."""

    def await_queues(self) -> None:
        """Wait until that is over, for a bounded time and with the lock let go; ``settle`` was called then."""

    def stop_queues(self) -> None:
        """Reset: forget the queues and every binding, without waiting. Idempotent; never raises."""

    def signal_kick(self, queue: int) -> None:
        """The driver notified *queue* and no ioeventfd took it. Ignored for queues that do not run."""

    def join_queues(self) -> None:
        """More queues are enabled than run: let those run too, the others go on where they are. Raises what a backend
        raises; then ``stop_queues`` cleans up.
        """

    def reset_queue(self, queue: QueueConfig) -> None:
        """Stop *queue* alone, without waiting: no kick of its is taken and no interrupt sent from now on, what is in
        flight is given up. Raises what a backend raises; then ``stop_queues`` cleans up.
        """

    def queue_busy(self, queue: QueueConfig) -> bool:
        """Whether something that ``reset_queue`` gave up may still use guest memory."""

    def enable_queue(self, queue: QueueConfig) -> None:
        """Let *queue*, which was reset alone, run from its beginning. Raises as ``reset_queue``."""

    def device_config(self) -> bytes:
        """The whole of the device's configuration space as it is now. Raises what the device raises."""

    def vector_changed(self, queue: QueueConfig) -> None:
        """The driver mapped *queue* to another vector."""

    def vector_count(self) -> int:
        """MSI-X vectors there are; 0 without MSI-X."""

    def config_interrupt(self) -> None:
        """Notify the driver of a configuration change."""

    def read_isr(self) -> int:
        """The ISR byte; reading clears it."""

    def clear_interrupts(self) -> None:
        """Reset: forget ISR and pending vectors, release the line."""

    def failed(self, error: Exception) -> None:
        """DEVICE_NEEDS_RESET was set because of *error*: tell log and observers."""


class VirtioCore:
    """The registers of one device and their rules."""

    def __init__(self, device_id: int, queue_sizes: Sequence[int], host: CoreHost) -> None:
        self.device_id = device_id
        self.host = host
        self.queues = tuple(QueueConfig(index=i, max_size=size) for i, size in enumerate(queue_sizes))
        self.offered = features.OFFERED_BY_TRANSPORT
        self.running = False  # between start_queues and cancel_queues
        self.resetting = False  # something of the last driver's is in flight, so that the status can't read 0 yet
        self.epoch = 0  # counts resets: what an earlier driver caused does not reach the next one
        self.early_start = False  # a legacy driver used the device before DRIVER_OK
        self._started: frozenset[int] = frozenset()  # queues that run
        self._ending: set[int] = set()  # queues whose own reset is not over
        self._generation_lock = threading.Lock()
        self._power_on()

    def _power_on(self) -> None:
        self.device_feature_select = 0
        self.driver_feature_select = 0
        self.driver_features = 0
        self._unknown_words: set[int] = set()  # past the last feature word, those in which the driver set a bit
        self.config_vector = NO_VECTOR
        self.queue_select = 0
        self.early_start = False
        self._generation = 0
        self._generation_seen = True
        self._shown: bytes | None = None  # configuration space as the driver saw it last
        self._ending.clear()
        for queue in self.queues:
            queue.reset()
        self.status = 0

    # Features

    def offer(self, device_features: int) -> None:
        """Set what is offered, the ring's bits included; once, when the device is real and before a driver looks."""
        self.offered = device_features

    @property
    def legacy_offered(self) -> int:
        """What a legacy driver is offered: the low word, and ANY_LAYOUT, which exists only there (6.3)."""
        return self.offered & features.LOW_WORD | features.ANY_LAYOUT

    @property
    def device_feature(self) -> int:
        """The word of offered bits that device_feature_select chooses, 0 where there are none."""
        select = self.device_feature_select
        return self.offered >> 32 * select & WORD if select < FEATURE_WORDS else 0

    @property
    def driver_feature(self) -> int:
        """The word of accepted bits that driver_feature_select chooses."""
        select = self.driver_feature_select
        return self.driver_features >> 32 * select & WORD if select < FEATURE_WORDS else 0

    def write_driver_feature(self, value: int) -> None:
        """Take a word of accepted bits, those not offered too: FEATURES_OK is where they are refused."""
        if self._features_frozen:
            return
        select = self.driver_feature_select
        if select >= FEATURE_WORDS:
            self._note_unknown(select, bool(value))
            return
        self.driver_features = self.driver_features & ~(WORD << 32 * select) | value << 32 * select

    def _note_unknown(self, select: int, accepted: bool) -> None:
        """Bits of words that nobody defined count until the driver clears them. One that sets them in more words than
        are remembered gets rid of them by its reset only.
        """
        if not accepted:
            self._unknown_words.discard(select)
        elif select not in self._unknown_words:
            self._unknown_words.add(select if len(self._unknown_words) < MAX_UNKNOWN_WORDS else TOO_MANY)

    def write_legacy_features(self, value: int) -> None:
        """Take the low word of a legacy driver; the rest counts as not accepted (4.1.4.8)."""
        if not self._features_frozen:
            self.driver_features = value & self.legacy_offered

    def _features_ok(self) -> bool:
        why = features.refusal(self.device_id, self.offered, self.driver_features)
        if self._unknown_words:
            why = "accepts bits that nobody defined"
        if why is None:
            why = self.host.refusal(self.driver_features)
        if why is not None:
            log.debug("FEATURES_OK refused: %s", why)
        return why is None

    @property
    def _features_frozen(self) -> bool:
        return self._frozen or bool(self.status & Status.FEATURES_OK)

    @property
    def legacy(self) -> bool:
        """The driver is a legacy one: it did not accept VERSION_1 (2.2.3)."""
        return not self.driver_features & features.VERSION_1

    # Status

    def write_status(self, value: int, *, legacy: bool = False) -> None:
        """The driver writes the status register; 0 resets.

        A modern driver waits until the status reads 0 (4.1.4.3.2), so the write returns at once and holds no vCPU while
        a host finishes what is in flight. A legacy one does not look again: its write takes until then, up to a bound;
        past it the device stays in reset as for a modern driver, refusing whatever comes.
        """
        if value == 0:
            self.begin_reset()
            if legacy and self.resetting:
                self.host.await_queues()
            return
        if self.resetting:
            return
        before = self.status
        self.status = next_status(before, value, features_ok=self._features_ok, legacy=legacy)
        if self.status & ~before & Status.FEATURES_OK:
            self.host.negotiated()
        if self.status & ~before & Status.DRIVER_OK:
            self._run(legacy)

    def _run(self, legacy: bool) -> None:
        """Run the enabled queues, those that do not run yet."""
        enabled = frozenset(queue.index for queue in self.queues if queue.enabled)
        if self.running and enabled == self._started:
            return
        if legacy and not self.running and not self.status & Status.FEATURES_OK:
            self.driver_features = features.prune(self.device_id, self.driver_features & self.legacy_offered)
        start = self.host.join_queues if self.running else self.host.start_queues
        try:
            self.running, self._started = True, enabled
            start()
        except Exception as e:  # whatever a device or backend raises, the driver's write has to return
            self.running = False
            self.needs_reset(e)

    def begin_reset(self) -> None:
        """Stop the queues; the rest happens at once, or in ``settle`` when nothing is in flight any more."""
        self.running = False
        self.host.cancel_queues()
        self.resetting = True
        self.settle()

    def settle(self) -> None:
        """Finish the resets under way once nothing is in flight. Called before each access to the registers."""
        if self.resetting and not self.host.queues_busy():
            self._finish_reset()
        for index in tuple(self._ending):
            if not self.host.queue_busy(self.queues[index]):
                self._ending.discard(index)
                self.queues[index].reset()
                self.queues[index].renewable = True

    def reset(self) -> None:
        """Everything back to power-on, now: what the host does not give back is left behind."""
        self.begin_reset()
        if self.resetting:
            self._finish_reset()

    def _finish_reset(self) -> None:
        """Status changes last: it reads 0 when nothing moves any more."""
        self.resetting = False
        self.host.stop_queues()
        self.epoch += 1  # now, not before: what the queues reported until here was about this driver
        self.host.clear_interrupts()
        self._power_on()

    def needs_reset(self, error: Exception) -> None:
        """Set DEVICE_NEEDS_RESET because of *error*, once until the next reset (2.1.2)."""
        if self.status & Status.NEEDS_RESET or self.resetting:
            return
        self.status |= Status.NEEDS_RESET
        if self.status & Status.DRIVER_OK or self.early_start:
            self.host.config_interrupt()
        self.host.failed(error)

    # Configuration generation

    def device_config(self) -> bytes:
        """The device's configuration space as the driver is about to see it; empty if the device raises, which costs
        its driver a reset.

        Other threads change a configuration first and say so afterwards. So each look is compared with the last one:
        no driver finds changed bytes under the generation of those before (4.1.4.3.1), whatever was said by then.
        """
        try:
            now = self.host.device_config()
        except Exception as e:  # whatever a device raises, the driver's access has to return
            self.needs_reset(e)
            now = b""
        with self._generation_lock:
            if self._shown is not None and now != self._shown:
                self._advance_generation()
            self._shown, self._generation_seen = now, True
        return now

    @property
    def config_generation(self) -> int:
        """Counts changes of the device's configuration, modulo 256."""
        self.device_config()
        with self._generation_lock:
            self._generation_seen = True  # a change may have been announced since
            return self._generation

    def bump_generation(self) -> None:
        """The device's configuration changed. Any thread.

        Changes that the driver has not had a chance to see in between count once, so that the 8 bits can't wrap around
        between two of its looks (4.1.4.3.1).
        """
        with self._generation_lock:
            if self._generation_seen:
                self._advance_generation()

    def _advance_generation(self) -> None:
        self._generation = (self._generation + 1) & 0xFF
        self._generation_seen = False

    # Queues

    @property
    def selected(self) -> QueueConfig | None:
        """The queue that queue_select chooses, None when there is no such queue."""
        return self.queues[self.queue_select] if self.queue_select < len(self.queues) else None

    def writable_queue(self) -> QueueConfig | None:
        """The selected queue while its size and addresses may change."""
        queue = self.selected
        if queue is None or queue.enabled or self.resetting or (self._frozen and not queue.renewable):
            return None
        return queue

    @property
    def _frozen(self) -> bool:
        return self.running or self.resetting or bool(self.status & Status.DRIVER_OK)

    def write_queue_size(self, value: int) -> None:
        """A smaller ring: up to the maximum, and of a size that the driver's ring format can have, else ignored
        (4.1.4.3.2).
        """
        queue = self.writable_queue()
        if queue is not None and ring_format(self.driver_features).takes_size(value) and value <= queue.max_size:
            queue.size = value

    def write_queue_enable(self, value: int) -> None:
        """Enable the selected queue; only 1 does that, and nothing but a reset undoes it. Where the device runs, a
        queue that was reset alone runs at once (2.6.1.2).
        """
        queue = self.writable_queue()
        if queue is None or value != 1:
            return
        queue.enabled, queue.renewable = True, False
        if self.running:
            self._started |= {queue.index}
            self._change_queue(self.host.enable_queue, queue)

    @property
    def queue_reset(self) -> int:
        """1 while the selected queue's reset is under way (4.1.4.3.1)."""
        return int(self.queue_select in self._ending)

    def write_queue_reset(self, value: int) -> None:
        """Reset the selected queue alone; only 1 does that, and only where RING_RESET was negotiated. It is over when
        nothing of the queue's is in flight any more; queue_reset and queue_enable read 0 then (4.1.4.3.1).
        """
        queue = self.selected
        negotiated = self.driver_features & features.RING_RESET and self.status & Status.FEATURES_OK
        if queue is None or value != 1 or not negotiated or self.resetting or queue.index in self._ending:
            return
        self._ending.add(queue.index)
        if self.running and queue.index in self._started:
            self._started -= {queue.index}
            self._change_queue(self.host.reset_queue, queue)
        self.settle()

    def _change_queue(self, change: Callable[[QueueConfig], None], queue: QueueConfig) -> None:
        self.attempt(functools.partial(change, queue))

    def attempt(self, change: Callable[[], None]) -> None:
        """Do something to queues that run; where that fails they run no more, and the driver is asked for a reset."""
        try:
            change()
        except Exception as e:  # whatever a device or backend raises, the driver's write has to return
            self.running = False
            self.needs_reset(e)

    def write_queue_pfn(self, value: int) -> None:
        """Legacy: place the selected queue at page *value* and enable it; 0 disables it.

        A driver that uses some queues before DRIVER_OK may still set up others (3.1.2), which run from DRIVER_OK or
        their first kick on. Taking away a queue that runs resets the device: its driver is about to free the memory,
        and no legacy register could bring one queue back alone.
        """
        queue = self.selected
        if queue is None or self.resetting:
            return
        if self._frozen and (not self._early or queue.index in self._started):
            if value == 0 and queue.enabled:
                self.write_status(0, legacy=True)
            return
        queue.pfn = value
        queue.enabled = value != 0
        queue.desc, queue.avail, queue.used = legacy_ring_addresses(value, queue.size) if value else (0, 0, 0)

    def write_queue_vector(self, value: int) -> None:
        """Map the selected queue to a vector; one that does not exist maps to none (4.1.5.1.2)."""
        queue = self.selected
        if queue is not None:
            queue.vector = self._vector(value)
            self.host.vector_changed(queue)

    def write_config_vector(self, value: int) -> None:
        """Map configuration changes to a vector."""
        self.config_vector = self._vector(value)

    def _vector(self, value: int) -> int:
        return value if value < self.host.vector_count() else NO_VECTOR

    def notify(self, queue: int, *, legacy: bool = False) -> None:
        """The driver notifies *queue* by a register write. A queue that does not exist or does not run is ignored.

        Legacy drivers may use the device before DRIVER_OK (3.1.2), so their first kick starts it.
        """
        if queue >= len(self.queues) or self.resetting:
            return
        if legacy and self.queues[queue].enabled and (self._early or self._may_start_early):
            self.early_start = True
            self._run(legacy=True)
        if self.running:
            self.host.signal_kick(queue)

    @property
    def _early(self) -> bool:
        """Queues run, and the driver has not said DRIVER_OK."""
        return self.running and not self.status & (Status.DRIVER_OK | Status.NEEDS_RESET)

    @property
    def _may_start_early(self) -> bool:
        too_late = Status.FEATURES_OK | Status.DRIVER_OK | Status.NEEDS_RESET | Status.FAILED
        return not self.running and bool(self.status & Status.ACKNOWLEDGE) and not self.status & too_late
