"""Message vectors, of MSI and MSI-X alike: deliverable or not, pending bits, and who watches changes.

The message of a vector is composed when the guest writes a register and kept, so that raising an interrupt is one
look-up. The lock is a leaf: held around the look-up *and* the injection, so that no message of an old setting can
leave after the write that masked or changed the vector has returned to the guest.
"""

import abc
import threading
from collections.abc import Callable, Iterable

import attrs

from acrn_dm.base.irq import InterruptSink, MsiMessage
from acrn_dm.base.records import frozen

NO_VECTOR = 0xFFFF  # virtio's "no vector"; like every number past the table it raises nothing


@frozen(kw_only=True, eq=False)
class Watch:
    """A registered callback; the token to ``unwatch`` with."""

    vector: int
    callback: Callable[[], None] = attrs.field(repr=False)


class MessageVectors(abc.ABC):
    """Base of ``Msi`` and ``Msix``. Guest-facing changes come under the function's lock; the rest from any thread."""

    def __init__(self, vectors: int) -> None:
        self.vectors = vectors
        self.enabled = False
        self._lock = threading.Lock()
        self._sink: InterruptSink | None = None
        self._messages: list[MsiMessage | None] = [None] * vectors
        self._pending = 0  # bit n: vector n was raised while it could not be delivered
        self._watches: dict[int, dict[Watch, None]] = {}  # by vector, in the order of registration

    def connect(self, sink: InterruptSink) -> None:
        """Deliver through *sink* from now on."""
        self._sink = sink

    def message(self, vector: int) -> MsiMessage | None:
        """What raising *vector* sends now; None while it is disabled or masked, or does not exist."""
        return self._messages[vector] if 0 <= vector < self.vectors else None

    def raise_vector(self, vector: int) -> None:
        """Deliver *vector*, or keep it pending while it is masked; numbers past the table raise nothing. Any thread."""
        if not 0 <= vector < self.vectors:
            return
        with self._lock:
            message = self._messages[vector]
            if message is not None and self._sink is not None:
                self._sink.inject_msi(message)
            elif self.enabled:
                self._pending |= 1 << vector

    def clear_pending(self, vector: int) -> None:
        """Take back an interrupt that was not delivered. Any thread."""
        if 0 <= vector < self.vectors:
            with self._lock:
                self._pending &= ~(1 << vector)

    @property
    def pending_bits(self) -> int:
        """All pending bits, vector 0 in bit 0."""
        return self._pending

    def watch(self, vector: int, callback: Callable[[], None]) -> Watch:
        """Call *callback* after each change of ``message(vector)``: on the writing thread, the leaf lock not held."""
        watch = Watch(vector=vector, callback=callback)
        with self._lock:
            self._watches.setdefault(vector, {})[watch] = None
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Never call it again; doing so twice is harmless."""
        with self._lock:
            of_vector = self._watches.get(watch.vector, {})
            of_vector.pop(watch, None)
            if not of_vector:
                self._watches.pop(watch.vector, None)

    @abc.abstractmethod
    def _compose(self, vector: int) -> MsiMessage | None:
        """The message of *vector* by the registers as they are; None while not deliverable."""

    def _set_enabled(self, enabled: bool) -> None:
        with self._lock:
            self.enabled = enabled
            if not enabled:
                self._pending = 0  # what was raised in this mode is void in the next: it would be spurious there

    def _changed(self, vectors: Iterable[int]) -> None:
        """Registers of *vectors* were written: send what was waiting and tell the watchers of messages that differ."""
        with self._lock:
            changed = [v for v in vectors if self._refresh(v)]
            watches = [watch for v in changed for watch in self._watches.get(v, ())]
        for watch in watches:
            watch.callback()

    def _refresh(self, vector: int) -> bool:
        message = self._compose(vector)
        changed = message != self._messages[vector]
        self._messages[vector] = message
        if message is not None and self._sink is not None and self._pending >> vector & 1:
            self._pending &= ~(1 << vector)
            self._sink.inject_msi(message)
        return changed
