"""One PCI function outside a machine: on a bus of its own, with the client's memory and the client's interrupts.

It lives as long as the process; clients come and go. Control work is done on the main loop's thread.
"""

import logging
import time
from collections.abc import Callable

from acrn_dm.base.bus import mmio_bus, pio_bus
from acrn_dm.base.errors import GuestError, HostError
from acrn_dm.base.events.io_loops import IoLoops
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import device_loops
from acrn_dm.export.vfio_user.dma import DmaMemory
from acrn_dm.export.vfio_user.irqs import Irqs
from acrn_dm.export.vfio_user.regions import Regions
from acrn_dm.pci.bus import PciBus
from acrn_dm.pci.function import PciFunction
from acrn_dm.pci.quiesce import left_behind, quiesce

log = logging.getLogger(__name__)

IOAPIC_PINS = 24
RESET_S = 3.0  # less than the five seconds after which QEMU gives a connection up
PAUSE_S = 3.0  # ... for a change of its memory


class ExportedFunction:
    """The function as its client has it. *dumps_memory*: core dumps of this process have the client's memory.
    *tells_writes*: the client hears of what queues write there (``DmaMemory``). *quit_* ends the process.
    """

    def __init__(
        self,
        function: PciFunction,
        main_loop: IoLoop,
        quit_: Callable[[], None],
        *,
        dumps_memory: bool = False,
        tells_writes: bool = False,
    ) -> None:
        self.function = function
        self.main_loop = main_loop
        self.memory = DmaMemory(main_loop, dumped=dumps_memory, tells=tells_writes)
        self.regions = Regions(function)
        self._loops = IoLoops()
        io_loop = device_loops(function.context, self._loops.get).get
        self.irqs = Irqs(function, io_loop)
        self._bus = PciBus()
        self._bus.add(function)
        self._resources = Resources(
            memory=self.memory,
            pio=pio_bus(),
            mmio=mmio_bus(),
            interrupts=self.irqs,
            eventfds=self.irqs,
            main_loop=main_loop,
            io_loop=io_loop,
            device_failed=self._device_failed,
            quit=quit_,
            pause_s=PAUSE_S,
        )

    def open(self) -> None:
        """Join the bus, and open what the function needs. Raises ConfigError or HostError."""
        self._bus.assign()
        self._bus.route(IOAPIC_PINS)
        self._bus.attach(self._resources)
        with self.function.lock:
            self.function.realize(self._resources)

    def reset(self) -> None:
        """As after power-on; the client's eventfds stay. Raises HostError where something is still in flight.

        Transfers that wait for the client are given up, those too that begin before the function has heard of it.
        """

        def step(seconds: float) -> None:
            self.memory.give_up()
            time.sleep(seconds)

        if not quiesce([self.function], step, seconds=RESET_S):
            raise HostError(f"{self.function.name} has something in flight that does not end")
        with self.function.lock:
            self.function.reset()
        self.irqs.restore()

    def window_changed(self) -> None:
        """The terminal has another size."""
        with self.function.lock:
            self.function.window_changed()

    def client_gone(self) -> None:
        """Forget all that the client brought. Its memory goes when nothing of the function is in flight there; what the
        host does not give back in time keeps its pages.
        """
        try:
            self.reset()
        except HostError as e:
            log.error("%s", e)
        self.memory.forget()
        self.irqs.forget()

    def close(self) -> None:
        """Give everything back. Idempotent."""
        self.function.prepare_close()
        self.function.close()
        self._loops.close()
        if left_behind([self.function]):
            self.memory.abandon()
        else:
            self.memory.close()

    def _device_failed(self, device: object, error: Exception) -> None:
        if isinstance(error, GuestError) and self.memory.unreachable:
            log.warning("rings reach memory that is a file only: QEMU has it with memory-backend-memfd,share=on")
