"""One virtio device outside a machine: the device, its loops, and the userspace backend that serves its rings.

It lives as long as the process; clients come and go. Control work is done on the main loop's thread.
"""

import functools
import logging
from collections.abc import Callable, Sequence

import attrs

from acrn_dm.backends.vbs_u import VbsU
from acrn_dm.base.bus import mmio_bus, pio_bus
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.io_loops import IoLoops
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import device_loops
from acrn_dm.export.vhost_user.client_memory import ClientMemory
from acrn_dm.export.vhost_user.inflight import InflightRegion
from acrn_dm.export.vhost_user.vring import ClientKick, Vring
from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import Ring
from acrn_dm.virtio.backend import Session, SessionQueue
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.switches import offered_by_rings, packed_offered

log = logging.getLogger(__name__)


class NoMachine:
    """The interrupts and eventfd bindings of a device that is in no machine: there are none."""

    def inject_msi(self, message: MsiMessage) -> None:
        """Nobody to interrupt."""

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        """Nobody to interrupt."""

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Raises HostError."""
        raise HostError("a device outside a machine binds no eventfds")

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Raises HostError."""
        raise HostError("a device outside a machine binds no eventfds")


class ExportedDevice:
    """The device as the client has it. Also the device's ``Transport``: *changed* and *broken* are called on the main
    loop. Raises ConfigError for a feature of rings that the user wants and the device can't have.

    *quit_* is called when whoever sits at this process's terminal wants the end. *dumps_memory*: core dumps of this
    process have the clients' memory.
    """

    def __init__(
        self,
        device: VirtioDevice,
        main_loop: IoLoop,
        *,
        quit_: Callable[[], None] = lambda: None,
        dumps_memory: bool = False,
    ) -> None:
        self.device = device
        self.main_loop = main_loop
        self.dumps_memory = dumps_memory
        self._ring_features = _offered_by_rings(device)
        self.changed: Callable[[], None] = lambda: None
        self.broken: Callable[[Exception], None] = lambda _: None
        self._server = VbsU(device)
        self._loops = IoLoops()
        self._epoch = 0  # what a former session reports does not reach the next one
        self._nothing = ClientMemory()
        machine = NoMachine()
        self._resources = Resources(
            memory=self._nothing.guest_memory,
            pio=pio_bus(),
            mmio=mmio_bus(),
            interrupts=machine,
            eventfds=machine,
            main_loop=main_loop,
            io_loop=device_loops(device.context, self._loops.get).get,
            device_failed=lambda device, error: None,
            quit=quit_,
        )
        device.transport = self

    @property
    def features(self) -> int:
        """What clients are offered, without vhost-user's own bit."""
        return self.device.features | self._ring_features

    def open(self) -> None:
        """Open the device's own files. Raises ConfigError or HostError."""
        self.device.realize(self._resources)

    def start(
        self,
        negotiated: int,
        vrings: Sequence[Vring],
        memory: ClientMemory,
        inflight: InflightRegion,
        opened: Callable[[int, Ring], None] = lambda index, ring: None,
    ) -> None:
        """Serve *vrings*, noting in *inflight*; *opened* is called with each before. Raises PeerError or GuestError for
        rings that can't be; then nothing runs.
        """
        form = ring_format(negotiated)
        queues = tuple(
            SessionQueue(
                index=vring.index,
                size=vring.size,
                desc=memory.guest_address(vring.desc or 0),
                avail=memory.guest_address(vring.avail),
                used=memory.guest_address(vring.used),
                kick=ClientKick(vring.kick_fd),
                call=vring.call,
                position=vring.position or form.start,
                notes=inflight.part(vring.index, form),
                opened=opened,
            )
            for vring in vrings
        )
        resources = attrs.evolve(self._resources, memory=memory.guest_memory)
        try:
            self._server.start(Session(features=negotiated, queues=queues, resources=resources))
        except Exception:
            self.stop()
            raise

    def each_ring(self, work: Callable[[int, Ring], None]) -> None:
        """Do *work* with the index of each ring that is served and the ring, while nobody uses it."""
        self._server.each_ring(work)

    def stop(self) -> dict[int, RingPosition]:
        """Let go of the rings; returns where each is that ran. The driver may go on. Idempotent."""
        self._epoch += 1
        return dict(self._server.stop())

    def reset(self) -> None:
        """The driver is gone: forget what it said through queues. Only while no rings are served."""
        self.device.reset()

    def close(self) -> None:
        """Stop, and give everything back. Idempotent."""
        self.stop()
        self.reset()
        self.device.close()
        self._loops.close()
        self._nothing.clear()

    def config_changed(self) -> None:
        """Transport: any thread."""
        self._soon(self.changed)

    def fail(self, error: Exception) -> None:
        """Transport: any thread."""
        self._soon(functools.partial(self.broken, error))

    def queues_changed(self, done: Callable[[], None]) -> None:
        """Transport: the userspace backend looks at what the device wants."""
        done()

    def _soon(self, work: Callable[[], None]) -> None:
        epoch = self._epoch
        self.main_loop.call_soon(lambda: work() if epoch == self._epoch else None)


def _offered_by_rings(device: VirtioDevice) -> int:
    chosen = device.context.switches
    return offered_by_rings(device.in_order, chosen, device.name) | packed_offered(VbsU.packed_by_default, chosen)
