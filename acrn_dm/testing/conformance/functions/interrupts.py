"""Rules of interrupts: by the pin, by MSI, by MSI-X (PCI Local Bus 3.0, 6.2.2, 6.2.3 and 6.8)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.functions.signals import DATA, ENABLE, Signals, msi, msix
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.conformance.table import NotApplicable
from acrn_dm.testing.guest_pci import MSI_ADDRESS, MSIX_ENABLE, MSIX_FUNCTION_MASK

PCI = ("pci",)
ENTRY = 16


def _pulled(bench: Bench) -> Signals:
    """A function that interrupts by its pin. Raises NotApplicable."""
    signals = Signals(bench)
    assert not signals.line, "the pin is pulled before anything was asked for"
    signals.interrupt()
    return signals


@rule("pcifn.intx.raise", kinds=PCI)
def pin_is_pulled(bench: Bench) -> None:
    assert _pulled(bench).line, "the line is not pulled"


@rule("pcifn.intx.release", kinds=PCI)
def served_interrupt_lets_the_pin_go(bench: Bench) -> None:
    signals = _pulled(bench)
    for _ in range(2):
        signals.acknowledge()
        assert not signals.line, "the line is pulled after the interrupt was served"
        signals.interrupt()
        assert signals.line, "a second interrupt does not pull the line"


@rule("pcifn.intx.status", kinds=PCI)
def status_says_that_an_interrupt_waits(bench: Bench) -> None:
    signals = Signals(bench)
    assert not signals.status, "Interrupt Status is set before anything was asked for"
    signals = _pulled(bench)
    assert signals.status, "Interrupt Status is not set"
    signals.disable_pin(True)
    assert signals.status, "Interrupt Status follows Interrupt Disable"
    signals.acknowledge()
    assert not signals.status, "Interrupt Status is set after the interrupt was served"


@rule("pcifn.intx.disable", kinds=PCI)
def disabled_pin_is_not_pulled(bench: Bench) -> None:
    signals = _pulled(bench)
    signals.disable_pin(True)
    assert not signals.line, "the line is pulled although INTx is disabled"
    signals.disable_pin(False)
    assert signals.line, "an interrupt that waited is lost when INTx is enabled again"
    signals.acknowledge()
    signals.disable_pin(True)
    signals.interrupt()
    assert not signals.line, "the line is pulled although INTx is disabled"


@rule("pcifn.intx.message", kinds=PCI)
def message_takes_the_place_of_the_pin(bench: Bench) -> None:
    signals = Signals(bench)
    if bench.function.vectors:
        bench.function.enable_msix()
    else:
        msi(bench).enable()
    signals.messages()
    signals.interrupt()
    assert not signals.line, "the line is pulled although messages are enabled"
    assert sum(signals.messages().values()) == 1, "no message, or more than one"


@rule("pcifn.intx.reset", kinds=PCI)
def reset_lets_the_pin_go(bench: Bench) -> None:
    signals = _pulled(bench)
    bench.machine.reset()
    assert not signals.line, "the line is pulled after a reset"
    assert not signals.status, "Interrupt Status is set after a reset"


@rule("pcifn.msi.off", kinds=PCI)
def msi_begins_disabled(bench: Bench) -> None:
    registers = msi(bench)
    for when in ("at first", "after a reset"):
        assert not bench.function.read(registers.at + 2, 2) & ENABLE, f"MSI is enabled {when}"
        registers.enable()
        bench.machine.reset()


@rule("pcifn.msi.caps", kinds=PCI)
def msi_control_says_what_it_can(bench: Bench) -> None:
    registers = msi(bench)
    assert registers.vectors <= 32, f"MSI with 2 to the power of {registers.control >> 1 & 7} messages"
    bench.function.write(registers.at + 2, 2, 0xFFFE)
    control = bench.function.read(registers.at + 2, 2)
    assert control & 0xFF8E == registers.control & 0xFF8E, (
        f"MSI's control changes from {registers.control:#x} to {control:#x}"
    )
    bench.function.write(registers.at + 4, 4, 0xFFFF_FFFF)
    low = bench.function.read(registers.at + 4, 4) & 3
    assert low == 0, f"the low bits of MSI's address read {low}"


@rule("pcifn.msi.data", kinds=PCI)
def message_is_what_was_written(bench: Bench) -> None:
    signals, registers = Signals(bench), msi(bench)
    for data in (DATA, 0x0020, 0x7FE0):
        registers.enable(data)
        signals.messages()
        signals.interrupt()
        assert signals.messages() == {data: 1}, f"the message is not the one with the data {data:#x}"
        signals.acknowledge()


@rule("pcifn.msi.mask", kinds=PCI)
def masked_message_waits(bench: Bench) -> None:
    signals, registers = Signals(bench), msi(bench)
    function, mask_at = bench.function, registers.mask_at
    registers.enable()
    function.write(mask_at, 4, 0xFFFF_FFFF)
    signals.messages()
    signals.interrupt()
    assert signals.messages() == {}, "a masked message is sent"
    assert function.read(mask_at + 4, 4), "no pending bit is set for a masked message"
    function.write(mask_at, 4, 0)
    assert signals.messages() == {DATA: 1}, "a message that waited is not sent once when it is unmasked"
    assert not function.read(mask_at + 4, 4), "the pending bit stays"


@rule("pcifn.msi.multiple", kinds=PCI)
def several_messages_differ_in_their_low_bits(bench: Bench) -> None:
    signals, registers = Signals(bench), msi(bench)
    if registers.vectors == 1:
        raise NotApplicable("the function has one message")
    for several in range(registers.vectors.bit_length()):
        registers.enable(several=several)
        signals.messages()
        signals.interrupt()
        sent = signals.messages()
        assert sent, f"no message with {1 << several} of {registers.vectors}"
        wrong = [hex(data) for data in sent if not DATA <= data < DATA + (1 << several)]
        assert not wrong, f"messages {wrong} where {1 << several} from {DATA:#x} on are allowed"
        signals.acknowledge()


@rule("pcifn.msix.off", kinds=PCI)
def msix_begins_disabled_and_masked(bench: Bench) -> None:
    place, function = msix(bench), bench.function
    for when in ("at first", "after a reset"):
        control = function.read(place.at + 2, 2)
        assert not control & (MSIX_ENABLE | MSIX_FUNCTION_MASK), f"MSI-X control is {control:#x} {when}"
        for vector in range(place.vectors):
            entry = function.bar_read(place.table[0], place.table[1] + ENTRY * vector + 12, 4)
            assert entry & 1, f"vector {vector} is not masked {when}"
        function.enable_msix()
        bench.machine.reset()


@rule("pcifn.msix.caps", kinds=PCI)
def msix_table_lies_in_memory(bench: Bench) -> None:
    place, bars = msix(bench), bench.function.bars
    sizes = {
        "table": (place.table, ENTRY * place.vectors),
        "pending bits": (place.pending, -(-place.vectors // 64) * 8),
    }
    for what, ((bar, offset), size) in sizes.items():
        assert not getattr(bars.get(bar), "io", True), f"MSI-X's {what} are in BAR {bar}, which is no memory"
        assert offset + size <= bars[bar].size, (
            f"MSI-X's {what} are {size:#x} bytes at {offset:#x} of {bars[bar].size:#x}"
        )
    if place.table[0] == place.pending[0]:
        first, last = sorted(sizes.values())
        assert first[0][1] + first[1] <= last[0][1], "MSI-X's table and its pending bits overlap"


@rule("pcifn.msix.table", kinds=PCI)
def msix_table_keeps_every_entry(bench: Bench) -> None:
    place, function = msix(bench), bench.function
    bar, base = place.table
    for vector in range(place.vectors):
        for word, value in enumerate((MSI_ADDRESS + 0x1000, 0, DATA + vector, 1)):
            function.bar_write(bar, base + ENTRY * vector + 4 * word, 4, value)
    for vector in range(place.vectors):
        entry = [function.bar_read(bar, base + ENTRY * vector + 4 * word, 4) for word in range(4)]
        assert entry == [MSI_ADDRESS + 0x1000, 0, DATA + vector, 1], f"entry {vector} of {place.vectors} reads {entry}"


@rule("pcifn.msix.pba", kinds=PCI)
def pending_bits_are_read_only(bench: Bench) -> None:
    place, function = msix(bench), bench.function
    bar, base = place.pending
    for value in (0xFFFF_FFFF, 0):
        function.bar_write(bar, base, 4, value)
        assert function.bar_read(bar, base, 4) == 0, "the pending bits can be written"


@rule("pcifn.msix.data", kinds=PCI)
def msix_message_is_what_was_written(bench: Bench) -> None:
    signals, function = Signals(bench), bench.function
    msix(bench)
    function.enable_msix()
    signals.messages()
    signals.interrupt()
    known = {function.message_data(vector) for vector in range(function.vectors)}
    sent = signals.messages()
    assert len(sent) == 1, f"the messages are {sent}"
    ((data, _),) = sent.items()
    assert data in known, f"the message {data:#x} is not in the table"
    vector = next(v for v in range(function.vectors) if function.message_data(v) == data)
    signals.acknowledge()
    function.write_vector(vector, 0x1234_5678)
    signals.interrupt()
    assert signals.messages() == {0x1234_5678: 1}, "new data in the table do not count"


@rule("pcifn.msix.mask", kinds=PCI)
def masked_vector_waits(bench: Bench) -> None:
    signals, function = Signals(bench), bench.function
    place = msix(bench)
    function.enable_msix()
    for vector in range(place.vectors):
        function.mask(vector)
    signals.messages()
    signals.interrupt()
    assert signals.messages() == {}, "the message of a masked vector is sent"
    assert any(function.pending(vector) for vector in range(place.vectors)), "no pending bit is set"
    for vector in range(place.vectors):
        function.mask(vector, False)
    assert sum(signals.messages().values()) == 1, "a message that waited is not sent once when it is unmasked"
    assert not any(function.pending(vector) for vector in range(place.vectors)), "the pending bit stays"


@rule("pcifn.msix.function_mask", kinds=PCI)
def masked_function_waits(bench: Bench) -> None:
    signals, function = Signals(bench), bench.function
    place = msix(bench)
    function.enable_msix()
    function.mask_function()
    signals.messages()
    signals.interrupt()
    assert signals.messages() == {}, "a message is sent although the function is masked"
    assert any(function.pending(vector) for vector in range(place.vectors)), "no pending bit is set"
    function.mask_function(False)
    assert sum(signals.messages().values()) == 1, "a message that waited is not sent once when the mask goes"
