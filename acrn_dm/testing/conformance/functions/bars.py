"""Rules of base address registers (PCI Local Bus 3.0, 6.2.5)."""

from collections.abc import Iterator

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.guest_pci import COMMAND, HEADER_BARS, GuestBar, GuestFunction

PCI = ("pci",)
IO, MEMORY = 1, 2  # of the command register
ALL_ONES = 0xFFFF_FFFF
IO_LIMIT = 256  # bytes that an I/O BAR may ask for, 6.2.5.1
SWEEP = 512  # bytes of a BAR that are accessed at every offset


def _bars(function: GuestFunction) -> list[GuestBar]:
    if not function.bars:
        raise NotApplicable("the function has no BARs")
    return list(function.bars.values())


def _registers(function: GuestFunction) -> Iterator[int]:
    """Offsets of the six registers."""
    yield from range(HEADER_BARS, HEADER_BARS + 24, 4)


def _ones(function: GuestFunction, at: int) -> int:
    """What a register reads after all ones were written, decoding off; it is put back."""
    command = function.read(COMMAND, 2)
    function.write(COMMAND, 2, command & ~(IO | MEMORY))
    before = function.read(at, 4)
    function.write(at, 4, ALL_ONES)
    sized = function.read(at, 4)
    function.write(at, 4, before)
    assert function.read(at, 4) == before, f"BAR register {at:#x} does not take back {before:#x}"
    function.write(COMMAND, 2, command)
    return sized


def _holds(bench: Bench, bar: GuestBar, base: int) -> bool:
    """Whether the function's BAR answers from *base* to its end."""
    bus = bench.pci.bars[bar.index].window
    space = bench.machine.dispatch.pio if bar.io else bench.machine.dispatch.mmio
    first, last = space.find(base, 1), space.find(base + bar.size - 1, 1)
    name = f"{bench.pci.name} BAR{bar.index}"
    return bus is not None and all(found is not None and found[0].name == name for found in (first, last))


def _answers(bench: Bench, bar: GuestBar, base: int) -> bool:
    """Whether anything but all ones is read, or the function's BAR stands there."""
    vm = bench.machine.vm
    read = vm.pio_read if bar.io else vm.mmio_read
    return any(read(base + at, 4) != ALL_ONES for at in range(0, min(bar.size, 64), 4)) or _holds(bench, bar, base)


@rule("pcifn.bar.size", kinds=PCI)
def sizes_are_powers_of_two(bench: Bench) -> None:
    for bar in _bars(bench.function):
        assert bar.size & (bar.size - 1) == 0, f"BAR {bar.index} has {bar.size:#x} bytes"
        assert bar.size >= (4 if bar.io else 16), f"BAR {bar.index} has {bar.size:#x} bytes"
        assert bar.base % bar.size == 0, f"BAR {bar.index} of {bar.size:#x} bytes stands at {bar.base:#x}"


@rule("pcifn.bar.io_limit", kinds=PCI)
def io_bars_are_small(bench: Bench) -> None:
    for bar in _bars(bench.function):
        assert not bar.io or bar.size <= IO_LIMIT, f"I/O BAR {bar.index} asks for {bar.size} ports"


@rule("pcifn.bar.type", kinds=PCI)
def low_bits_say_what_a_bar_is(bench: Bench) -> None:
    function, skip = bench.function, False
    for index, at in enumerate(_registers(function)):
        if skip:
            skip = False
            continue
        before, sized = function.read(at, 4), _ones(function, at)
        if not sized:
            assert before == 0, f"BAR {index}, which is not there, reads {before:#x}"
            continue
        low = 3 if sized & 1 else 0xF
        assert sized & low == before & low, f"the low bits of BAR {index} change from {before & low} to {sized & low}"
        if sized & 1:
            assert not sized & 2, f"I/O BAR {index} has bit 1 set"
        else:
            assert sized & 6 in (0, 4), f"memory BAR {index} is of type {sized >> 1 & 3}"
            skip = sized & 6 == 4
            assert not skip or index < 5, "a 64-bit BAR has no second register"


@rule("pcifn.bar.move", kinds=PCI)
def bars_answer_where_they_are_put(bench: Bench) -> None:
    for bar in _bars(bench.function):
        there = bar.base
        away = _free(bench, bar)
        bench.function.move_bar(bar.index, away)
        for half, at in enumerate((HEADER_BARS + 4 * bar.index, HEADER_BARS + 4 * bar.index + 4)[: 1 + bar.wide]):
            low = 0xF if half == 0 and not bar.io else 3 if half == 0 else 0
            value = bench.function.read(at, 4) & ~low
            assert value == away >> 32 * half & ALL_ONES, f"BAR {bar.index} reads {value:#x}, it was put at {away:#x}"
        assert _holds(bench, bar, away), f"BAR {bar.index} does not answer at {away:#x}, where it was put"
        assert not _holds(bench, bar, there), f"BAR {bar.index} still answers at {there:#x}, where it was"
        bench.function.move_bar(bar.index, there)
        assert _holds(bench, bar, there), f"BAR {bar.index} does not come back to {there:#x}"


@rule("pcifn.decode", kinds=PCI)
def bars_answer_while_they_are_decoded(bench: Bench) -> None:
    function = bench.function
    command = function.read(COMMAND, 2) | IO | MEMORY
    for bar in _bars(function):
        bit = IO if bar.io else MEMORY
        function.write(COMMAND, 2, command)
        assert _holds(bench, bar, bar.base), f"BAR {bar.index} does not answer with decoding on"
        function.write(COMMAND, 2, command & ~bit)
        assert not _answers(bench, bar, bar.base), f"BAR {bar.index} answers with its decoding off"
        function.write(COMMAND, 2, bit)
        assert _holds(bench, bar, bar.base), f"BAR {bar.index} does not answer with only its own decoding on"
        function.write(COMMAND, 2, command)


@rule("pcifn.bar.access", kinds=PCI)
def accesses_of_any_width_are_harmless(bench: Bench) -> None:
    function = bench.function
    for bar in _bars(function):
        widths = (1, 2, 4) if bar.io else (1, 2, 4, 8)
        for width in widths:
            for at in (*range(min(bar.size, SWEEP) - width + 1), bar.size - width):
                value = function.bar_read(bar.index, at, width)
                assert 0 <= value < 1 << 8 * width
                function.bar_write(bar.index, at, width, (1 << 8 * width) - 1)
                function.bar_write(bar.index, at, width, 0)
    bench.machine.settle()
    assert bench.machine.dispatch.errors == 0, "an access to a BAR raised"


def _free(bench: Bench, bar: GuestBar) -> int:
    """An address where nothing answers, aligned for *bar*. Raises NotApplicable."""
    space = bench.machine.dispatch.pio if bar.io else bench.machine.dispatch.mmio
    limit = 1 << 16 if bar.io else 1 << 32
    step = max(bar.size, 4096) if not bar.io else max(bar.size, 64)
    for base in range(bar.base + step, limit - bar.size, step):
        if all(space.find(base + at, 1) is None for at in {0, bar.size // 2, bar.size - 1}):
            return base
    raise NotApplicable("there is no place to move a BAR to")
