"""The virtio device: the class that plugin authors derive from.

A device is a protocol machine: it says which features and queues it has, answers its configuration space and serves its
queues. It does not know the transport, the hypervisor or the ring's layout.

Threads: ``handle_queue`` and whatever it starts run on the queue's I/O loop; every other method runs on a control
thread (a vCPU's or the main thread) under the device's lock. Code on an I/O loop never takes that lock; it reports
with ``fail`` and ``config_changed``, which hand over to the main loop. Between ``start`` and ``stop`` queues belong
to the I/O loop, before and after to nobody.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import DeviceContext
from acrn_dm.virtio.placement import Placement, said_by
from acrn_dm.virtio.queue import Queue


class Transport(Protocol):
    """The device's way back to its driver; set by the transport before ``realize``."""

    def config_changed(self) -> None:
        """Device configuration changed: bump the generation and interrupt. Any thread."""

    def fail(self, error: Exception) -> None:
        """Set DEVICE_NEEDS_RESET and tell the driver. Any thread."""

    def queues_changed(self, done: Callable[[], None]) -> None:
        """The device's ``wants_queue`` has other answers now; *done* is called, on any thread, when whoever moves the
        data has taken notice. Any thread.
        """


class VirtioDevice:
    """Base of all virtio devices; override what differs. What only some have is in ``optional``: it is there when its
    method is.
    """

    # What most classes say once for all of their devices; a device that stands for one of another kind has its own.
    device_id: int  # virtio device id (spec 5), e.g. 4 for entropy
    pci_class: int = 0xFF0000  # 24-bit PCI class code: base class, subclass, interface
    # Whether each queue returns its chains in the order in which they came (IN_ORDER, 2.7.9). True: by itself, so that
    # it is offered. False: not always, so that it is only where the user asks for it, and chains then wait for one
    # another. None: they can't wait for one another, so that it is refused.
    in_order: bool | None = False
    transitional: bool = False  # also drivable by legacy drivers (only kinds that existed before virtio 1.0)

    def __init__(self, context: DeviceContext) -> None:
        self.context = context
        self.name = context.name
        self.transport: Transport | None = None

    @property
    def features(self) -> int:
        """Device feature bits offered (bits 0-23 and 50-127); ring and transport bits are the transport's."""
        return 0

    @property
    def queue_sizes(self) -> Sequence[int]:
        """Maximum size of each queue, powers of two up to 32768; its length is the number of queues."""
        return (64,)

    @property
    def config_size(self) -> int:
        """Bytes of device configuration space; the transport bounds every access by it."""
        return 0

    @property
    def placement(self) -> Placement:
        """Who moves the data and what stands behind the device, as far as it is the device's to say.

        Unless overridden it is made of what the class says as ``backend_name``, ``backend_path``, ``backend_optional``
        and ``backend_text``, where it has those attributes.
        """
        return said_by(self)

    def check(self) -> list[str]:
        """Say what is missing on this host (image, tap, path ...), each as one line; opens and changes nothing."""
        return []

    def realize(self, resources: Resources) -> None:
        """Open what the device needs; called once, before the guest starts. Raises ConfigError or HostError."""

    def read_config(self, offset: int, size: int) -> bytes:
        """Return *size* bytes of configuration space; offset + size <= config_size."""
        return bytes(size)

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver wrote *data*; read-only fields ignore it."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """DRIVER_OK: *features* are negotiated, *queues* are the enabled ones, by index (disabled ones are missing)."""

    def handle_queue(self, queue: Queue) -> None:
        """The driver kicked *queue* (or may have): pop chains, push them back. Used buffers are announced later."""

    def stop(self) -> None:
        """No ``handle_queue`` runs now or later. After ``cancel`` (see ``optional``) forget what is in flight, and do
        not wait: what is still ``busy`` then is left behind. Without it (a pause) finish everything, so that the driver
        misses nothing.
        """

    def reset(self) -> None:
        """The driver is gone, and with it what it said through queues; after a mere ``stop`` it may go on."""

    def close(self) -> None:
        """Give back what ``realize`` opened; also called when ``realize`` failed half-way. Idempotent."""

    def config_changed(self) -> None:
        """Tell the driver that the configuration space changed. Any thread."""
        if self.transport is not None:
            self.transport.config_changed()

    def fail(self, error: Exception) -> None:
        """Ask the driver for a reset because of *error*. Any thread."""
        if self.transport is not None:
            self.transport.fail(error)
