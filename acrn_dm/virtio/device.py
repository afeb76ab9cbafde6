"""The virtio device: the class that plugin authors derive from.

A device is a protocol machine: it says which features and queues it has, answers its configuration space and serves its
queues. It does not know the transport, the hypervisor or the ring's layout.

Threads: ``handle_queue`` and whatever it starts run on the queue's I/O loop; every other method runs on a control
thread (a vCPU's or the main thread) under the device's lock. Code on an I/O loop never takes that lock; it reports
with ``fail`` and ``config_changed``, which hand over to the main loop. Between ``start`` and ``stop`` queues belong
to the I/O loop, before and after to nobody.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import DeviceContext
from acrn_dm.virtio.queue import Queue


class Transport(Protocol):
    """The device's way back to its driver; set by the transport before ``realize``."""

    def config_changed(self) -> None:
        """Device configuration changed: bump the generation and interrupt. Any thread."""

    def fail(self, error: Exception) -> None:
        """Set DEVICE_NEEDS_RESET and tell the driver. Any thread."""

    def queues_changed(self, done: Callable[[], None]) -> None:
        """``VirtioDevice.wants_queue`` has other answers now; *done* is called, on any thread, when whoever moves the
        data has taken notice. Any thread.
        """


class VirtioDevice:
    """Base of all virtio devices; override what differs."""

    device_id: ClassVar[int]  # virtio device id (spec 5), e.g. 4 for entropy
    pci_class: ClassVar[int] = 0xFF0000  # 24-bit PCI class code: base class, subclass, interface
    transitional: ClassVar[bool] = False  # also drivable by legacy drivers (only kinds that existed before virtio 1.0)

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
    def backend_name(self) -> str:
        """Name of the ``BackendType`` that moves the data; chosen when the device is built."""
        return "vbs-u"

    @property
    def backend_optional(self) -> bool:
        """Where the host can't do ``backend_name``, this process moves the data instead, and the log says so."""
        return False

    @property
    def backend_path(self) -> Path | None:
        """Where the backend is to be found: the socket of a ``vhost-user`` one."""
        return None

    def local_queues(self, features: int) -> Collection[int]:
        """Queues that stay with ``handle_queue`` even if another process or the kernel moves the data: control
        queues. *features* are negotiated.
        """
        return ()

    def wants_queue(self, index: int) -> bool:
        """Whether the driver uses queue *index*, one of those it enabled, at the moment. Any thread."""
        return True

    @property
    def backend_text(self) -> str:
        """One word or two for the ``--dry-run`` table: what stands behind the device."""
        return "vbs-u"

    @property
    def uses_terminal(self) -> bool:
        """Whether it wants this process's standard input and output, which one device at most can have."""
        return False

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

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        """A legacy driver wrote *data*: the same, unless there are fields that only such a driver may write."""
        self.write_config(offset, data)

    def negotiated(self, features: int) -> None:
        """FEATURES_OK: the driver accepted *features*. A legacy driver has no such moment; ``start`` is the first that
        is heard of what it accepted.
        """

    def loop_name(self, queue: int) -> str:
        """Name of the I/O loop that serves queue number *queue*; ``io`` is shared by all who do not care."""
        return "io"

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """DRIVER_OK: *features* are negotiated, *queues* are the enabled ones, by index (disabled ones are missing)."""

    def handle_queue(self, queue: Queue) -> None:
        """The driver kicked *queue* (or may have): pop chains, push them back. Used buffers are announced later."""

    def cancel(self) -> None:
        """The driver has reset the device, or the machine goes off: no ``handle_queue`` runs now or later. Give up what
        is in flight, where it has got to, without waiting for it; what was acknowledged is kept. ``stop`` follows.
        """

    @property
    def busy(self) -> bool:
        """Whether what ``cancel`` gave up is under way in the host all the same, with guest memory or files in use.

        Until it is not, the status does not read 0 and nothing starts. Any thread; a device without helper threads
        never is.
        """
        return False

    def stop(self) -> None:
        """No ``handle_queue`` runs now or later. After ``cancel`` forget what is in flight, and do not wait: what is
        still ``busy`` then is left behind. Without it (a pause) finish everything, so that the driver misses nothing.
        """

    def reset(self) -> None:
        """The driver is gone, and with it what it said through queues; after a mere ``stop`` it may go on."""

    def prepare_close(self) -> None:
        """``close`` follows, when all devices were told: begin what takes time, so that it takes it once for all."""

    def close(self) -> None:
        """Give back what ``realize`` opened; also called when ``realize`` failed half-way. Idempotent."""

    def insert_medium(self, text: str) -> None:
        """Take the medium *text* (the kind's own option text) into an empty slot. Raises ConfigError or HostError."""
        raise ConfigError("takes no medium", option=self.name)

    def window_changed(self) -> None:
        """The terminal that this process stands on has another size; consoles on it tell their guest."""

    def config_changed(self) -> None:
        """Tell the driver that the configuration space changed. Any thread."""
        if self.transport is not None:
            self.transport.config_changed()

    def fail(self, error: Exception) -> None:
        """Ask the driver for a reset because of *error*. Any thread."""
        if self.transport is not None:
            self.transport.fail(error)
