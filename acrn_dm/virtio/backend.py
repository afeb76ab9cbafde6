"""Backends, who move a device's data: the contract between the transport and one, and how it is chosen.

The transport owns registers and eventfds; a backend owns the rings from ``start`` to ``stop``. It may run in this
process (``vbs_u``), in the kernel (vhost) or in another process (vhost-user): a ``SessionQueue`` has what each of them
needs, guest addresses, the kick's and the call's eventfd, and the position to start from.

The eventfds stay the same from ``start`` to ``stop``, whatever the guest does: a masked or rewritten vector, a moved
BAR or a disabled decoder is followed behind them (``pci.eventfds``). So no backend is ever told of a mask or a new
call; ARCHITECTURE.md, "Backends", has the reasons.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import frozen
from acrn_dm.contract.resources import Resources
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.position import RingPosition, as_position
from acrn_dm.ring.ring import Ring
from acrn_dm.virtio import features
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.native._counters import QueueCounters
from acrn_dm.virtio.optional import LegacyConfig


class Kick(Protocol):
    """A queue's kick; ``pci.eventfds.KickEvent`` in a machine."""

    fd: int

    def signal(self) -> None:
        """Do what the driver does."""


class Call(Protocol):
    """A queue's call; ``pci.eventfds.CallEvent`` in a machine."""

    fd: int

    @property
    def private(self) -> bool:
        """Nobody else writes ``fd``, which stays the same and never blocks."""

    def signal(self) -> None:
        """Interrupt the driver. Any thread."""

    def forward(self, loop: IoLoop, failed: Callable[[HostError], None] | None = None) -> None:
        """Let *loop* pass on what others write to ``fd`` and no hypervisor takes; *failed* hears why it can't."""


@frozen(kw_only=True, eq=False)
class SessionQueue:
    """One enabled queue; *desc*, *avail*, *used* are guest physical addresses. It goes on at *position*."""

    index: int
    size: int
    desc: int = attrs.field(repr=hex)
    avail: int = attrs.field(repr=hex)
    used: int = attrs.field(repr=hex)
    kick: Kick = attrs.field(repr=False)  # wait on kick.fd
    call: Call = attrs.field(repr=False)  # call.signal(); or write call.fd after call.forward(loop)
    position: RingPosition = attrs.field(default=RingPosition(), converter=as_position)
    opened: Callable[[int, Ring], None] | None = attrs.field(default=None, repr=False)  # the ring, before it is served
    notes: memoryview | None = attrs.field(default=None, repr=False)  # of what is in flight (``ring.native.notes``)
    counters: QueueCounters = attrs.field(repr=False)  # of who serves it in this process

    @counters.default
    def _nobody_reads(self) -> QueueCounters:
        return QueueCounters(self.size)

    @property
    def next_avail(self) -> int:
        """*position* as vhost and vhost-user say it (SET_VRING_BASE)."""
        return self.position.base

    @property
    def layout(self) -> RingLayout:
        """Size and addresses."""
        return RingLayout(size=self.size, desc=self.desc, avail=self.avail, used=self.used)


@frozen(kw_only=True, eq=False)
class Session:
    """The result of a negotiation. *queues* are the enabled ones by index."""

    features: int = attrs.field(repr=hex)
    queues: tuple[SessionQueue, ...]
    resources: Resources = attrs.field(repr=False)
    poll_ns: int | None = None  # look at the queues this often instead of being kicked
    # ``strict=on``: whoever walks rings in this process tells which clause the driver broke, how, and in which queue.
    driver_broke: Callable[[str, str, int], object] | None = attrs.field(default=None, repr=False)
    native: bool = True  # queues may be served in C; a test that watches the calls of Python says no
    resumed: bool = False  # rings go on after a pause: somebody has served them before

    @property
    def event_idx(self) -> bool:
        """VIRTIO_F_EVENT_IDX was negotiated."""
        return bool(self.features & features.EVENT_IDX)

    @property
    def indirect(self) -> bool:
        """VIRTIO_F_INDIRECT_DESC was negotiated."""
        return bool(self.features & features.INDIRECT_DESC)


class Backend:
    """Base of all backends; one instance serves one device. All methods run on control threads under the function's
    lock. In order: ``realize`` and ``offer`` once, then ``start`` and ``stop`` any number of times, ``close`` last.
    Between ``start`` and ``stop`` comes a ``cancel`` unless the driver is to go on.
    """

    # Packed rings are offered unless ``packed=off`` says no. Else ``packed=on`` has to say yes: whoever moves the
    # data may not know them, or may be followed by another whom such a ring does not tell where it was.
    packed_by_default: bool = False
    # Guest memory may become another between ``stop`` and ``start``: whoever is told of it once must not say so.
    follows_memory: ClassVar[bool] = False
    polls: ClassVar[bool] = False  # looks at the queues every ``Session.poll_ns`` itself, so their kicks stay unbound

    def __init__(self, device: VirtioDevice) -> None:
        self.device = device

    def check(self) -> list[str]:
        """Say what is missing on this host for this device, each as one line; before ``realize``, opens nothing."""
        return []

    def realize(self, resources: Resources) -> None:
        """Open what is needed (a node, a socket); the device is real already. Raises HostError; ``close`` follows."""

    def offer(self, offered: int) -> int:
        """Return the features to offer instead of the device's and the ring's, *offered*: usually fewer."""
        return offered

    def read_config(self, offset: int, size: int) -> bytes:
        """Return *size* bytes of the device's configuration space at *offset*."""
        return self.device.read_config(offset, size)

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver wrote *data* into the configuration space."""
        self.device.write_config(offset, data)

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        """A legacy driver wrote *data*."""
        if isinstance(self.device, LegacyConfig):
            self.device.write_legacy_config(offset, data)
        else:
            self.device.write_config(offset, data)

    def start(self, session: Session) -> None:
        """Serve the queues. Raises GuestError (bad rings) or HostError; ``stop`` is called then, too."""
        raise NotImplementedError  # every backend has its own

    def queues_changed(self, done: Callable[[], None]) -> None:
        """The device wants other queues than before (``QueueSwitch``): call *done* when that is so. Any
        thread. Nothing to do where the device itself decides which queues get data.
        """
        done()

    def reset_queue(self, index: int) -> bool:
        """The driver resets queue *index* alone (RING_RESET): stop it without waiting and give up what is in flight;
        the others go on. Return False where that can't be done: then this backend is stopped and started without the
        queue. Raises as ``start``.
        """
        return False

    def queue_busy(self, index: int) -> bool:
        """After ``reset_queue``: whether something of the queue's that was given up may still use guest memory."""
        return False

    def enable_queue(self, session: Session, queue: SessionQueue) -> bool:
        """The driver has set up *queue* anew, one of those of *session*: serve it, too. Return False where that can't
        be done beside the others: then this backend is stopped and started with all of them. Raises as ``start``.
        """
        return False

    def cancel(self) -> None:
        """Nobody waits for what is in flight any more: begin to stop, without waiting. ``stop`` follows."""

    @property
    def busy(self) -> bool:
        """After ``cancel``: whether something in flight may still use guest memory."""
        return False

    def stop(self) -> Mapping[int, RingPosition | int]:
        """Stop using rings, eventfds and memory; return where each queue is that ran, as a position or as the number
        that vhost says. Idempotent.
        """
        raise NotImplementedError  # every backend has its own

    def close(self) -> None:
        """Give everything back. Idempotent."""
