"""Worlds of the packages in ``plugins/``: what their control sockets, or their own parts, let a test do outside."""

import socket
import tempfile
from collections.abc import Sequence
from typing import Any

import acrn_dm_balloon
import acrn_dm_edu
import acrn_dm_gpio
import acrn_dm_i2c
import acrn_dm_input

from acrn_dm.testing import GuestFunction, SimMachine
from acrn_dm.testing.conformance import SLOT
from acrn_dm.testing.conformance.outside import I2cBus, Operation, Person, Pressure, Wires

Event = tuple[int, int, int]
ANSWER = 1 << 16


class Control:
    """The control socket of a device that was built last: lines in, answers out."""

    def __init__(self, package: object, kind: str, options: str = "") -> None:
        self.plugins = [package]
        self._kind, self._options = kind, options
        self._directory = tempfile.TemporaryDirectory(prefix="acrn-dm-conform-")
        self._count = 0
        self._machine: SimMachine | None = None
        self._end: socket.socket | None = None
        self.device: Any = None

    def build(self, machine: SimMachine) -> None:
        """Put the device into its slot."""
        self._count += 1
        self._hang_up()
        self._machine = machine
        text = f"{self._options},control={self._path}".lstrip(",")
        self.device = machine.add(self._kind, text, slot=SLOT).device

    def say(self, line: str) -> str:
        """One line; returns its answer."""
        assert self._machine is not None
        if self._end is None:
            self._end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._end.connect(self._path)
            self._end.setblocking(False)
        self._end.send(f"{line}\n".encode())
        self._machine.settle()
        try:
            return self._end.recv(ANSWER).decode().strip()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        """Hang up, and remove the directory."""
        self._hang_up()
        self._directory.cleanup()

    @property
    def _path(self) -> str:
        return f"{self._directory.name}/{self._count}"

    def _hang_up(self) -> None:
        if self._end is not None:
            self._end.close()
        self._end = None


class Keyboard(Control, Person):
    """A played keyboard; the file of its LEDs is what the host sees."""

    def __init__(self) -> None:
        super().__init__(acrn_dm_input, "virtio-input")

    @property
    def repertoire(self) -> Sequence[Sequence[Event]]:
        return [[(1, 30, 1)], [(1, 30, 0)], [(1, 48, 1)], [(1, 48, 0)]]

    def act(self, events: Sequence[Event]) -> None:
        names = {30: "a", 48: "b"}
        for _, code, value in events:
            self.say(f"{'press' if value else 'release'} {names[code]}")

    def lights(self) -> Sequence[Event]:
        seen, self._seen = self._seen, []
        return seen

    def build(self, machine: SimMachine) -> None:
        super().build(machine)
        self._seen: list[Event] = []
        source = self.device.source
        was = source.status

        def status(event: Any) -> None:
            self._seen.append(tuple(event))
            was(event)

        source.status = status


class Tablet(Control, Person):
    """A played tablet, whose updates have two events and more."""

    def __init__(self) -> None:
        super().__init__(acrn_dm_input, "virtio-input", "kind=tablet")

    @property
    def repertoire(self) -> Sequence[Sequence[Event]]:
        return [[(3, 0, 100), (3, 1, 200)], [(3, 0, 300), (3, 1, 400)]]

    def act(self, events: Sequence[Event]) -> None:
        self.say("abs " + " ".join(str(value) for _, _, value in events))


class Lines(Control, Wires):
    """Simulated GPIO lines."""

    def __init__(self, options: str = "count=4,line=led,line=button") -> None:
        super().__init__(acrn_dm_gpio, "virtio-gpio", options)

    def set_level(self, line: int, level: int) -> None:
        self.say(f"set {line} {level}")

    def level(self, line: int) -> int | None:
        _, _, direction, level = self.say("list").split()[line].split(":")
        return int(level) if direction == "out" else None


class Target(acrn_dm_i2c.Slave):
    """A target that takes everything and counts upwards; its bus keeps what passed."""

    def __init__(self, text: str) -> None:
        self.value = 0

    def write(self, byte: int) -> bool:
        return True

    def read(self) -> int:
        self.value = (self.value + 1) % 256
        return self.value


class Adapter(Control, I2cBus):
    """A simulated bus with one target."""

    present, absent = 0x50, 0x51

    def __init__(self) -> None:
        super().__init__(acrn_dm_i2c, "virtio-i2c", f"device={__name__}.Target@0x50")

    def build(self, machine: SimMachine) -> None:
        super().build(machine)
        self._seen: list[tuple[int, bool, bytes]] = []
        bus = self.device.bus
        was = bus.transfer

        def transfer(messages: Any) -> Any:
            try:
                reads = was(messages)
            except Exception as e:
                self._note(messages, getattr(e, "done", []))
                raise
            self._note(messages, reads)
            return reads

        bus.transfer = transfer

    def _note(self, messages: Any, reads: Sequence[bytes]) -> None:
        for message, read in zip(messages, reads, strict=False):
            self._seen.append((message.address, message.data is None, read if message.data is None else message.data))

    def transfers(self) -> Sequence[tuple[int, bool, bytes]]:
        seen, self._seen = self._seen, []
        return seen


class Host(Control, Pressure):
    """The host of a balloon."""

    names = ("swap_in", "swap_out", "major_faults", "minor_faults", "free", "total")

    def __init__(self) -> None:
        super().__init__(acrn_dm_balloon, "virtio-balloon")

    def set_target(self, pages: int) -> None:
        self.say(f"size {pages * 4096}")

    def ask_statistics(self) -> None:
        self.say("stats")

    def statistics(self) -> dict[int, int]:
        values = self.device.stats.values
        return {self.names.index(name): value for name, value in values.items()}


class Edu(Operation):
    """The educational device's registers."""

    plugins = (acrn_dm_edu,)

    def build(self, machine: SimMachine) -> None:
        self._machine = machine
        machine.add("edu", slot=SLOT)

    def interrupt(self, function: GuestFunction) -> None:
        function.bar_write(0, 0x60, 4, 1)

    def acknowledge(self, function: GuestFunction) -> None:
        function.bar_write(0, 0x64, 4, 0xFFFF_FFFF)

    def move(self, function: GuestFunction, gpa: int, length: int) -> None:
        """Its own memory is 0 at first, so something is brought there from RAM."""
        for at in range(0, length, 8):
            function.vm.mmio_write(0x8000 + at, 8, 0x5A5A_5A5A_5A5A_5A5A)
        self._transfer(function, 0x8000, 0x40000, length, 1)
        self._transfer(function, 0x40000, gpa, length, 3)

    def close(self) -> None:
        """Nothing is open."""

    def _transfer(self, function: GuestFunction, source: int, target: int, count: int, command: int) -> None:
        for register, value in ((0x80, source), (0x88, target), (0x90, count), (0x98, command)):
            function.bar_write(0, register, 8, value)
        self._machine.settle()
