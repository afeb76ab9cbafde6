"""Rules of a PCI function as a whole: reset, data that it moves, other instances, what it leaves behind."""

import os
import threading

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.functions.signals import MASTER
from acrn_dm.testing.conformance.kinds.demand import world
from acrn_dm.testing.conformance.outside.world import Operation
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.conformance.subject import SLOT
from acrn_dm.testing.conformance.table import NotApplicable
from acrn_dm.testing.guest_pci import COMMAND
from acrn_dm.testing.machine import SimMachine

PCI = ("pci",)
SWEEP = 256  # bytes of each BAR that are compared
LENGTH, GUARD = 64, 64
FILL = 0xC3
FAR = (1 << 40, (1 << 64) - 32, 0xFFFF_FFE0)  # behind all memory, across the end of addresses, across 4 GiB


def _registers(bench: Bench) -> dict[tuple[int, int], int]:
    """(BAR, offset) -> what is read, of registers that stay as they are."""
    function = bench.function
    places = [(bar.index, at) for bar in function.bars.values() for at in range(0, min(bar.size, SWEEP), 4)]
    first = {place: function.bar_read(*place, 4) for place in places}
    return {place: value for place, value in first.items() if function.bar_read(*place, 4) == value}


def _scribble(bench: Bench) -> None:
    for index, at in _registers(bench):
        for value in (0x5A5A_5A5A, 0xFFFF_FFFF, 0):
            bench.function.bar_write(index, at, 4, value | at)
    bench.machine.settle()


@rule("pcifn.reset", kinds=PCI)
def reset_brings_the_first_state_back(bench: Bench) -> None:
    function = bench.function
    config, registers = [function.read(at, 4) for at in range(0, 256, 4)], _registers(bench)
    _scribble(bench)
    for at in range(0, 256, 4):
        function.write(at, 4, 0xFFFF_FFFF)
    bench.machine.reset()
    after = [function.read(at, 4) for at in range(0, 256, 4)]
    changed = [hex(4 * n) for n, (old, new) in enumerate(zip(config, after, strict=True)) if old != new]
    assert not changed, f"configuration registers {changed} are not as before the reset"
    now = _registers(bench)
    wrong = [(bar, hex(at)) for (bar, at), value in registers.items() if now.get((bar, at), value) != value]
    assert not wrong, f"registers {wrong} are not as before the reset"


@rule("pcifn.state", kinds=PCI)
def instances_share_nothing(bench: Bench) -> None:
    if not bench.function.bars:
        raise NotApplicable("the function has no BARs")
    other = bench.another()
    before = _registers(other)
    for index, at in _registers(bench):
        bench.function.bar_write(index, at, 4, 0x5A5A_0000 | at)
    bench.machine.settle()
    after = _registers(other)
    wrong = [(bar, hex(at)) for (bar, at), value in before.items() if after.get((bar, at), value) != value]
    assert not wrong, f"registers {wrong} follow those of another instance"


def _use_once(bench: Bench) -> None:
    with SimMachine(plugins=bench.subject.plugins) as machine:
        bench.subject.build(machine)
        machine.function(SLOT)


@rule("pcifn.leak", kinds=PCI)
def nothing_is_left_behind(bench: Bench) -> None:
    _use_once(bench)  # what is made once per process is there now
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    _use_once(bench)
    assert len(os.listdir("/proc/self/fd")) == files, "files are left open"
    assert threading.active_count() == threads, "threads are left running"


def _moved(bench: Bench, *, master: bool) -> tuple[bytes, bytes, bytes]:
    """Guest memory before, where, and behind where the function was told to write, with bus mastering on or off."""
    function, machine = bench.function, bench.machine
    command = function.read(COMMAND, 2)
    function.write(COMMAND, 2, command | MASTER if master else command & ~MASTER)
    at = machine.heap.take(GUARD + LENGTH + GUARD)
    machine.memory.write(at, bytes([FILL]) * (GUARD + LENGTH + GUARD))
    world(bench, Operation).move(function, at + GUARD, LENGTH)
    machine.settle()
    found = machine.memory.read(at, GUARD + LENGTH + GUARD)
    return found[:GUARD], found[GUARD : GUARD + LENGTH], found[GUARD + LENGTH :]


@rule("pcifn.dma.data", kinds=PCI)
def data_go_where_they_were_wanted(bench: Bench) -> None:
    before, there, behind = _moved(bench, master=True)
    assert there != bytes([FILL]) * LENGTH, "nothing is written"
    assert all(there), "less than was wanted is written"
    assert before == behind == bytes([FILL]) * GUARD, "memory beside the buffer is written"


@rule("pcifn.dma.master", kinds=PCI)
def nothing_moves_without_bus_mastering(bench: Bench) -> None:
    parts = _moved(bench, master=False)
    assert set(b"".join(parts)) == {FILL}, "memory is written although bus mastering is off"
    assert _moved(bench, master=True)[1] != bytes([FILL]) * LENGTH, "nothing is written with bus mastering on again"


@rule("pcifn.dma.bounds", kinds=PCI)
def memory_that_is_not_there_is_left_alone(bench: Bench) -> None:
    machine, operation = bench.machine, world(bench, Operation)
    region = machine.memory.regions[0]
    base = machine.heap.take(4096)
    machine.memory.write(base, bytes([FILL]) * 4096)
    function = bench.function
    function.write(COMMAND, 2, function.read(COMMAND, 2) | MASTER)
    for gpa in (*FAR, region.gpa + region.size, region.gpa + region.size - LENGTH // 2):
        operation.move(function, gpa, LENGTH)
        machine.settle()
    assert machine.memory.read(base, 4096) == bytes([FILL]) * 4096, "memory that nobody named is written"
    assert machine.dispatch.errors == 0, "an address outside memory raised"
    assert _moved(bench, master=True)[1] != bytes([FILL]) * LENGTH, "the function is of no use after a wrong address"
