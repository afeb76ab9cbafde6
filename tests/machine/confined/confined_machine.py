"""A simulated machine in its sandbox: ``python -m tests.machine.confined.confined_machine MODE MONITOR DEVICE...``.

Its devices are in slots from ``FIRST_SLOT`` on. Each line at its standard input is an expression, in JSON; so is the
answer: what it comes to, or why it comes to nothing.
"""

import json
import struct
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.backends.helper.supervisor import Supervisor
from acrn_dm.machine.rights import giving_up
from acrn_dm.pci.function import PciFunction
from acrn_dm.testing import SimMachine
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.backends.user.user_rig import eventually
from tests.machine.confined.confined_rig import FIRST_SLOT, SECTOR

IN, OUT = 0, 1
LIVENESS, RAISE, COMMAND, BUFFER = 0x04, 0x60, 0x98, 0x4_0000  # of the card "edu"
RAM = 0x30_0000
HEADER = struct.Struct("<IIQ")


class Disk:
    """The driver of a disk. A sector has the same byte throughout."""

    def __init__(self, machine: SimMachine, slot: int) -> None:
        self._machine, self.driver = machine, machine.driver(slot)
        self.driver.start()
        self._done: dict[int, bytes] = {}  # what came, by token

    def send(self, sector: int, byte: int | None = None) -> int:
        """Have it written, or read; returns the token."""
        header = HEADER.pack(IN if byte is None else OUT, 0, sector)
        out, room = ([header], [SECTOR, 1]) if byte is None else ([header, bytes([byte]) * SECTOR], [1])
        token = self.driver.queue(0).send(out, room)
        self._done.pop(token, None)  # that of an earlier request
        self.driver.queue(0).kick()
        self._machine.settle()
        return token

    def answers(self) -> list[int]:
        """Tokens that have come back by now, well done all of them."""
        self._machine.settle()
        self._done |= (found := {done.token: done.data for done in self.driver.queue(0).completed()})
        assert [data[-1] for data in found.values()] == [0] * len(found)
        return list(self._done)

    def do(self, sector: int, byte: int | None = None) -> int:
        """Write, or read, and wait for it; returns the byte that is there."""
        token = self.send(sector, byte)
        self.have(token)
        data = self._done[token]
        assert byte is not None or data == data[:1] * SECTOR + b"\0"
        return data[0] if byte is None else byte

    def have(self, *tokens: int) -> None:
        """Wait for these."""
        eventually(self._machine, lambda: set(tokens) <= set(self.answers()))


def edu(machine: SimMachine, slot: int) -> bool:
    """Whether the card there lives, interrupts by a message, and moves memory."""
    function = machine.function(slot)
    function.bar_write(0, LIVENESS, 4, 5)
    assert function.bar_read(0, LIVENESS, 4) == ~5 & 0xFFFF_FFFF
    function.enable_msi()
    before = machine.interrupts[function.msi_data]
    function.bar_write(0, RAISE, 4, 2)
    eventually(machine, lambda: machine.interrupts[function.msi_data] == before + 1)
    machine.memory.write(RAM, b"memory")
    for source, destination, command in ((RAM, BUFFER, 1), (BUFFER, RAM + 100, 3)):
        for offset, value in ((0x80, source), (0x88, destination), (0x90, 6), (COMMAND, command)):
            function.bar_write(0, offset, 8, value)
        eventually(machine, lambda: not function.bar_read(0, COMMAND, 4) & 1)
    eventually(machine, lambda: machine.memory.read(RAM + 100, 6) == b"memory")
    return True


def boots_with(machine: SimMachine, slot: int) -> bool:
    """Whether a guest that boots now finds a function there."""
    machine.reset()
    try:
        machine.function(slot)
    except LookupError:
        return False
    return True


def present(function: PciFunction) -> int:
    """Which process serves the device, if it is in one of its own; else 0."""
    assert isinstance(function, VirtioPci)
    door = function.data_plane.backend.door
    assert isinstance(door, Supervisor)
    return door._child.pid if door._child is not None and door._child.taken else 0


def obey(names: Mapping[str, Any], line: str) -> dict[str, object]:
    """The answer to *line*."""
    try:
        return {"is": eval(json.loads(line), dict(names))}
    except Exception:
        return {"error": traceback.format_exc()}


def main(argv: Sequence[str]) -> None:
    mode, monitor, *devices = argv
    with SimMachine() as made:
        for slot, text in enumerate(devices, FIRST_SLOT):
            made.add(*text.split(",", 1), slot=slot)  # type: ignore[call-overload]
        machine = made.machine
        machine.config = attrs.evolve(machine.config, command_monitor=Path(monitor))
        machine.broker = giving_up.keep(machine.config, machine.functions)
        made.start()
        giving_up.entrust(machine.broker, made.memory)
        assert machine.hypervisor is not None
        giving_up.release(attrs.evolve(machine.config, sandbox=mode), machine.functions, machine.hypervisor.type)
        names: dict[str, object] = {
            "made": made,
            "threading": threading,
            "disks": Disks(made),
            "boots_with": lambda slot: boots_with(made, slot),
            "edu": lambda slot: edu(made, slot),
            "present": lambda slot: present(made.bus.functions[slot - FIRST_SLOT]),
            "until": lambda done: eventually(made, done),
        }
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(obey(names, line)), flush=True)


class Disks(dict[int, Disk]):
    """By their slots; each has its driver when it is first asked for."""

    def __init__(self, machine: SimMachine) -> None:
        super().__init__()
        self._machine = machine

    def __missing__(self, slot: int) -> Disk:
        self[slot] = Disk(self._machine, slot)
        return self[slot]


if __name__ == "__main__":
    main(sys.argv[1:])
