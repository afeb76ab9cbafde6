"""A PCI function that another process is: what the machine has in its place.

What it looks like the process says when it is asked, before the bus gives its BARs their places. Registers are
messages, but for those that the process has in a file, which the guest reaches by itself (``windows``); writes to BARs
are posted, as PCI's own; the guest's memory is shared by files. A process that dies, keeps silent or breaks the
protocol leaves a function that reads as ones, as one that was pulled out of its slot.
"""

import logging
from collections.abc import Sequence

from acrn_dm.backends.door import door_at
from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user import device as numbers
from acrn_dm.base.errors import HostError
from acrn_dm.base.files.claims import Claim, socket_claim
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices.vfio_user.calls import PinCall, VectorCalls
from acrn_dm.devices.vfio_user.capabilities import MsixPlace
from acrn_dm.devices.vfio_user.config import VfioUserConfig
from acrn_dm.devices.vfio_user.registers import Registers
from acrn_dm.devices.vfio_user.server import Server
from acrn_dm.devices.vfio_user.space import bar_kinds, has_pin, sizes
from acrn_dm.devices.vfio_user.windows import Windows
from acrn_dm.devices.vfio_user.write_events import WriteEvents
from acrn_dm.pci import config_space as cs
from acrn_dm.pci.function import ALL_ONES, PciFunction
from acrn_dm.pci.msix import Msix
from acrn_dm.virtio.placement import Placement

log = logging.getLogger(__name__)

NAME = "vfio-user"
UNKNOWN, UNKNOWN_CLASS = 0xFFFF, 0xFF0000  # until the process is asked


class ForeignFunction(PciFunction):
    """The function. Its layout is made in ``complete_layout``."""

    def __init__(self, config: VfioUserConfig, context: DeviceContext) -> None:
        super().__init__(context, vendor=UNKNOWN, device=UNKNOWN, class_code=UNKNOWN_CLASS)
        self.options = config
        self.use_intx()  # a line is kept for it: lines are given out before the process is asked
        self.door = door_at(config.socket, context, NAME)
        self._server: Server | None = None
        self._vectors: list[VectorCalls] = []
        self._pin: PinCall | None = None
        self._events: WriteEvents | None = None
        self._windows: Windows | None = None
        self._started = False  # and not closed

    @property
    def placement(self) -> Placement:
        """The process."""
        return Placement(backend=NAME, path=self.options.socket, text=f"{NAME} {self.options.socket}")

    def claims(self) -> Sequence[Claim]:
        """The process's socket."""
        return [socket_claim(self.options.socket)]

    def check(self) -> list[str]:
        """Whether there is a socket; whether somebody serves it only connecting would show."""
        why = self.door.problem()
        return [] if why is None else [f"{self.name}: {why}"]

    def complete_layout(self, resources: Resources) -> bool:
        """Ask the process what it is. Raises HostError."""
        loop = resources.io_loop(self.name)  # its own: a process that does not read holds up nobody else
        memory = resources.memory
        server = Server(self.door, self.name, loop, memory, may_master=lambda: self.bus_master, lost=self._lost)
        self._server = server
        server.meet(resources.off_wanted)
        try:
            self._lay_out(server)
        except PeerError as e:
            raise HostError(f"{self.name}: {self.door.place}: {e}") from e
        return True

    def realize(self, resources: Resources) -> None:
        """Give the process the guest's memory, and ways to interrupt. Raises HostError."""
        server = self._server
        assert server is not None
        self._listen(server, resources)
        if self.options.ioeventfd:
            self._events = WriteEvents(server.link, resources.eventfds, self.bars)
        self._windows = Windows(server.link, self.bars, resources.window, resources.main_loop, self._cut)
        server.begin()
        resources.memory.generations.join(server.memory)
        self._resources = resources
        self._started = True
        if not server.description.resets:
            log.warning("%s can't be reset: a guest that boots again finds it as it was left", self.name)
        try:
            self._set_out(server)
        except HostError as e:
            raise server.described(e) from e

    def _listen(self, server: Server, resources: Resources) -> None:
        """Make the ways of its interrupts. Raises HostError."""
        loop, registry = resources.io_loop(self.name), resources.eventfds
        if self.intx is not None:
            self._pin = PinCall(self.intx, server.link, loop)
        for index, vectors in ((numbers.MSI, self.msi), (numbers.MSIX, self.msix)):
            if vectors is not None:
                count = server.description.interrupts[index]
                calls = VectorCalls(
                    index, count, vectors, pin=self._pin, link=server.link, loop=loop, registry=registry
                )
                self._vectors.append(calls)

    def reset(self) -> None:
        """The process's device is reset, too: nothing of it moves the guest's memory any more. For one that is gone the
        next process may have come: to a guest that boots it is there from the beginning.
        """
        if self._events is not None:
            self._events.unbind()
        super().reset()
        server = self._server
        if server is None or not self._started:
            return
        try:
            if server.there:
                server.restart()
            else:
                self._forget_events()
                server.come_back()
                log.info("%s: the process is there again", self.name)
            if self._pin is not None:
                self._pin.begin_anew()
            self._set_out(server)
        except HostError as e:
            log.warning("%s", e)

    def interrupts_changed(self) -> None:
        """Message vectors were switched on or off."""
        for vectors in self._vectors:
            vectors.follow()
        if self._pin is not None:
            if any(vectors.enabled for vectors in self._vectors):
                self._pin.take()
            else:
                self._give_pin(self._pin)
        self._follow()

    def bar_mapped(self, index: int, base: int) -> None:
        """Eventfds for writes follow it, and windows."""
        if self._events is not None:
            self._events.follow()
        self._follow()

    def bar_unmapped(self, index: int) -> None:
        """They are for nothing meanwhile, and nowhere."""
        if self._events is not None:
            self._events.follow()
        self._follow()

    def config_read(self, offset: int, size: int) -> int:
        """Ours and the process's bits."""
        server = self._server
        if server is None or not server.there:
            return ALL_ONES
        value = super().config_read(offset, size)
        theirs = server.shape.theirs(offset, size)
        if theirs:
            value = value & ~theirs | server.read_config(offset, size) & theirs
            if self.msi is not None:  # bits are pending there, too
                value |= self.msi.pending_register(offset, size)
        return value

    def config_write(self, offset: int, size: int, value: int) -> None:
        """To both."""
        server = self._server
        if server is None or not server.there:
            return
        if server.description.resets and server.shape.resets(offset, size, value):
            self.reset()
            return
        if server.shape.passes_on(offset, size):
            server.write_config(offset, size, value)
        super().config_write(offset, size, value)

    def extended_read(self, offset: int, size: int) -> int:
        """The process's, if it has one."""
        if self._server is not None and self.express:
            return self._server.read_config(offset, size)
        return super().extended_read(offset, size)

    def extended_write(self, offset: int, size: int, value: int) -> None:
        """To the process."""
        if self._server is not None and self.express:
            self._server.write_config(offset, size, value)

    def close(self) -> None:
        """The process is let go."""
        self._started = False
        if self._server is not None:
            self._server.close()
        self._forget_events()
        if self._windows is not None:
            self._windows.close()
        if self._pin is not None:
            self._pin.close()
        self.door.close()

    def _lay_out(self, server: Server) -> None:
        said, found, shape = server.description, server.capabilities, server.shape
        self.identify(
            shape.number(cs.VENDOR_ID, 2),
            shape.number(cs.DEVICE_ID, 2),
            shape.number(cs.REVISION, 4),
            shape.number(cs.SUBSYSTEM_VENDOR, 4),
        )
        shape.define(self.config)
        table: tuple[MsixPlace, Msix] | None = None
        if found.msix is not None:
            table = found.msix, self.take_msix(found.msix.at, found.msix.vectors)
        if found.msi is not None and found.msi_form is not None:
            self.take_msi(found.msi, found.msi_form)
        self.express = cs.CAP_EXPRESS in found.places and said.regions[numbers.CONFIG].size > cs.SIZE
        for index, kind in bar_kinds(said).items():
            self.add_bar(index, said.regions[index].size, kind, Registers(server, index, self._looked, table))
        if not has_pin(said):
            self.intx = None
            self.config.define(cs.INTERRUPT_PIN, 1, 0)

    def _set_out(self, server: Server) -> None:
        """The process knows what the registers are that are ours, and has its eventfd for the pin. Raises HostError."""
        server.write_config(cs.COMMAND, 2, self.config.read(cs.COMMAND, 2))
        if self._pin is not None:
            self._pin.give()
        if self._events is not None and not self._events.any:
            self._events.ask(sizes(server.description))
        if self._windows is not None and not self._windows.taken:
            msix = server.capabilities.msix
            kept = [msix.table, msix.pba] if msix is not None else []
            said = server.description.regions
            mapped = {index: size for index, size in sizes(server.description).items() if said[index].mapped}
            self._windows.take(mapped, kept + (self._events.stretches if self._events is not None else []))
        self._follow()

    def _follow(self) -> None:
        """Windows are where BARs are, while the pin is not in use: which asks for interrupts until the guest has looked
        at the device, and that has to be seen.
        """
        server, windows = self._server, self._windows
        if server is None or windows is None:
            return
        messages = any(vectors.enabled for vectors in self._vectors)
        disabled = bool(self.config.read(cs.COMMAND, 2) & cs.COMMAND_INTX_DISABLE)
        windows.follow(server.there and (self._pin is None or messages or disabled))
        # Else what was posted may be seen behind an eventfd, or a store in a window, that came later.
        server.posts = not (windows.any or (self._events is not None and self._events.any))

    def _cut(self) -> None:
        """The server has made a file shorter in which a window is. Main loop."""
        server = self._server
        if server is not None and server.there:
            server.link.broken("it has shortened a file that the guest has in its registers' place")

    def _give_pin(self, pin: PinCall) -> None:
        try:
            pin.give()
        except HostError as e:
            log.warning("%s: %s", self.name, e)

    def _looked(self) -> None:
        """The guest has accessed a register, which may have said what an interrupt is for."""
        if self._events is not None:
            self._events.bind()
        if self._pin is not None and self._server is not None and self._server.there:
            try:
                self._pin.acknowledge()
            except HostError:
                return  # the connection's end is told by who ends it

    def _lost(self, error: HostError) -> None:
        """The process is there no more. Any thread, under the lock of a conversation."""
        log.error("%s; the guest finds its function gone", error)
        if self._pin is not None:
            self._pin.release()
        resources = self._resources
        if resources is not None:
            resources.device_failed(self, error)
            resources.main_loop.call_soon(self._forget_lost)

    def _forget_lost(self) -> None:
        with self.lock:
            if self._server is not None and not self._server.there:
                self._forget_events()

    def _forget_events(self) -> None:
        for vectors in self._vectors:
            vectors.forget()
        if self._events is not None:
            self._events.close()
        if self._windows is not None:
            self._windows.forget()
