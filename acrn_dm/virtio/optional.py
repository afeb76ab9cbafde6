"""Optional parts of a virtio device: what only some have, a protocol for each, asked for by ``isinstance``.

A device has one by having its method; nothing is inherited and nothing registered. A method is called as the device's
others are, on a control thread under the function's lock, unless it says "any thread".
"""

import functools
from collections.abc import Collection, Iterable
from typing import Protocol, runtime_checkable

from acrn_dm.base.sandbox.needs import Needs
from acrn_dm.virtio.native._plane import Plane
from acrn_dm.virtio.queue import Queue


@runtime_checkable
class LocalQueues(Protocol):
    """A device that serves some of its queues itself whoever moves the data: control queues."""

    def local_queues(self, features: int) -> Collection[int]:
        """Queues that stay with ``handle_queue`` under a driver that negotiated *features*."""


@runtime_checkable
class QueueSwitch(Protocol):
    """A device whose driver tells it which of the enabled queues it uses; news is ``Transport.queues_changed``."""

    def wants_queue(self, index: int) -> bool:
        """Whether the driver uses queue *index*, one of those it enabled, at the moment. Any thread."""


@runtime_checkable
class NativePlane(Protocol):
    """A device with queues that are served in C (``virtio.native._plane``): ``handle_queue`` is not called for these.

    It has to be able to serve them itself all the same: with ``strict=on``, on a backend that hands rings to others,
    and where a test watches the calls of Python.
    """

    def plane(self, features: int, queue: Queue) -> Plane | None:
        """What serves *queue* under the driver that ``start`` was told of; None: ``handle_queue`` does."""


@runtime_checkable
class LoopChoice(Protocol):
    """A device with I/O loops of its own; the others share the loop ``io``."""

    def loop_name(self, queue: int) -> str:
        """Name of the I/O loop that serves queue number *queue*."""


@runtime_checkable
class Threads(Protocol):
    """A device whose queues several I/O threads may serve at once (``iothread=N``)."""

    def thread(self, queue: int) -> int:
        """Which of them serves queue number *queue*, counted from 0 and taken modulo how many there are."""


@runtime_checkable
class LegacyConfig(Protocol):
    """A device with fields of its configuration space that only a legacy driver may write."""

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        """A legacy driver wrote *data*; ``write_config`` is not called for it then."""


@runtime_checkable
class NegotiationWatcher(Protocol):
    """A device that shows another configuration as soon as features are negotiated."""

    def negotiated(self, features: int) -> None:
        """FEATURES_OK: the driver accepted *features*. A legacy driver has no such moment; ``start`` is the first that
        is heard of what it accepted.
        """


@runtime_checkable
class FeatureJudge(Protocol):
    """A device that can't be driven without some of its features."""

    def refusal(self, features: int) -> str | None:
        """Why a modern driver that accepted *features* must not have FEATURES_OK (3.1.1 step 5); None: it may.

        Asked when the rules that hold for every device are kept. The reason goes to the log at debug level.
        """


@runtime_checkable
class Cancellable(Protocol):
    """A device with requests in flight outside ``handle_queue``, in helper threads for example."""

    def cancel(self) -> None:
        """The driver has reset the device, or the machine goes off: no ``handle_queue`` runs now or later. Give up what
        is in flight, where it has got to, without waiting for it; what was acknowledged is kept. ``stop`` follows.
        """


@runtime_checkable
class InFlight(Protocol):
    """A device whose requests may outlast ``cancel``, because a helper thread waits in the host's kernel."""

    @property
    def busy(self) -> bool:
        """Whether what ``cancel`` gave up is under way in the host all the same, with guest memory or files in use.

        Until it is not, the status does not read 0 and nothing starts. Any thread.
        """


@runtime_checkable
class QueueReset(Protocol):
    """A device that lets go of one queue while it goes on with the others (RING_RESET, 2.6.1). It has ``QueueEnabled``,
    too; one without both is stopped between two requests, as for a pause, and started with the queues that are left.
    """

    def queue_reset(self, queue: Queue) -> None:
        """The driver resets *queue*: no ``handle_queue`` runs for it now or later, and it is closed next. Give up what
        is in flight there without waiting, as in ``Cancellable.cancel``.
        """


@runtime_checkable
class QueueEnabled(Protocol):
    """A device that takes on a queue while it serves others: the way back from ``QueueReset``."""

    def queue_enabled(self, queue: Queue) -> None:
        """The driver has set up *queue* anew, perhaps with another size; ``handle_queue`` follows."""


@runtime_checkable
class QueueInFlight(Protocol):
    """A device whose requests may outlast ``QueueReset.queue_reset``."""

    def queue_busy(self, index: int) -> bool:
        """Whether what was given up in queue *index* is under way in the host all the same. Any thread."""


@runtime_checkable
class SlowToClose(Protocol):
    """A device whose ``close`` takes time in the host: a last flush."""

    def prepare_close(self) -> None:
        """``close`` follows, when all devices were told: begin what takes time, so that it takes it once for all."""


@runtime_checkable
class Sandboxed(Protocol):
    """A device that does more, once it is open, than move data between rings and what it has open. One without this is
    let open nothing in a sandbox (``process=on,sandbox=``) but Python's modules, for reading.
    """

    def sandbox_needs(self) -> Needs:
        """What it does besides. Asked when the device is open, and before its first client is served."""


def needs_of(parts: Iterable[object], own: Needs) -> Needs:
    """*own*, and what those of *parts* say that say something: open devices, and backends."""
    return functools.reduce(Needs.joined, (part.sandbox_needs() for part in parts if isinstance(part, Sandboxed)), own)


@runtime_checkable
class TerminalUser(Protocol):
    """A device that may stand on this process's standard input and output, which one device at most can have."""

    @property
    def uses_terminal(self) -> bool:
        """Whether it does, as its options say."""


@runtime_checkable
class WindowWatcher(Protocol):
    """A device that tells its guest the size of a terminal."""

    def window_changed(self) -> None:
        """The terminal that this process stands on has another size."""


@runtime_checkable
class LinkSwitch(Protocol):
    """A network card whose link the host's manager sets."""

    def set_link(self, up: bool) -> None:
        """The cable is in, or not. Raises ConfigError where there is no network any more."""


@runtime_checkable
class MediumSlot(Protocol):
    """A device into which a medium can be put while the guest runs."""

    def insert_medium(self, text: str) -> None:
        """Take the medium *text* (the kind's own option text) into the empty slot. Raises ConfigError or HostError."""


@runtime_checkable
class RateLimited(Protocol):
    """A device whose limits in operations and bytes a second can be changed while the guest runs."""

    def set_limits(self, text: str) -> None:
        """Keep to the limits in *text* (options of the kind) and to no others. Raises ConfigError or HostError."""
