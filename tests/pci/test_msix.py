"""MSI-X: table, masks, pending bits, watchers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.base.irq import MsiMessage
from acrn_dm.pci.msix import Msix, bar_size, pba_offset
from tests.pci.parts import COMMAND, Interrupts, Probe, Setup
from tests.work import instructions

ENABLE, FUNCTION_MASK = 0x8000, 0x4000
MESSAGE = MsiMessage(addr=0xFEE0_1000, data=0x41)


class Rig:
    """A function with MSI-X of *vectors* vectors in BAR 1, driven through bus and BAR."""

    def __init__(self, vectors: int = 3, *, enabled: bool = True) -> None:
        self.function = Probe()
        self.msix = self.function.add_msix(1, vectors)
        self.setup = Setup(self.function)
        self.base = self.function.bars[1].base
        self.capability = self.setup.capability(self.function, 0x11)
        if enabled:
            self.control(ENABLE)
        self.function.calls.clear()

    @property
    def interrupts(self) -> Interrupts:
        return self.setup.interrupts

    def control(self, value: int) -> None:
        self.setup.write(self.function, self.capability + 2, value, 2)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.setup.mmio.write(self.base + offset, size, value)

    def read(self, offset: int, size: int = 4) -> int:
        return self.setup.mmio.read(self.base + offset, size)

    def program(self, vector: int, message: MsiMessage = MESSAGE, *, masked: bool = False) -> None:
        for i, word in enumerate((message.addr & 0xFFFF_FFFF, message.addr >> 32, message.data, int(masked))):
            self.write(16 * vector + 4 * i, word)

    def mask(self, vector: int, masked: bool) -> None:
        self.write(16 * vector + 12, int(masked))


@pytest.mark.parametrize(
    ("vectors", "pba", "size"),
    [(1, 0x1000, 0x1008), (3, 0x1000, 0x1008), (256, 0x1000, 0x1020), (257, 0x2000, 0x2028), (2048, 0x8000, 0x8100)],
)
def test_layout_of_the_bar(vectors: int, pba: int, size: int) -> None:
    assert (pba_offset(vectors), bar_size(vectors)) == (pba, size)


@pytest.mark.parametrize("vectors", [0, -1, 2049])
def test_vector_count_out_of_range_raises(vectors: int) -> None:
    with pytest.raises(ValueError):
        Msix(vectors)


def test_capability_tells_size_table_and_pba() -> None:
    rig = Rig(3, enabled=False)
    assert rig.setup.read(rig.function, rig.capability + 2, 2) == 2
    assert rig.setup.read(rig.function, rig.capability + 4) == 0x0000_0001
    assert rig.setup.read(rig.function, rig.capability + 8) == 0x0000_1001
    assert rig.function.bars[1].size == 0x2000


def test_capability_is_read_only_but_for_enable_and_mask() -> None:
    rig = Rig(3, enabled=False)
    rig.control(0xFFFF)
    assert rig.setup.read(rig.function, rig.capability + 2, 2) == 0xC002
    rig.setup.write(rig.function, rig.capability + 4, 0xFFFF_FFFF)
    assert rig.setup.read(rig.function, rig.capability + 4) == 1


def test_entries_start_masked() -> None:
    rig = Rig()
    assert [rig.read(16 * v + 12) for v in range(3)] == [1, 1, 1]


def test_programmed_vector_is_delivered() -> None:
    rig = Rig()
    rig.program(1)
    rig.msix.raise_vector(1)
    assert rig.interrupts.messages == [MESSAGE]


def test_64_bit_address_is_delivered_whole() -> None:
    rig = Rig()
    message = MsiMessage(addr=0x12_FEE0_0004, data=0xFFFF_FFFF)
    rig.program(0, message)
    rig.msix.raise_vector(0)
    assert rig.interrupts.messages == [message]


def test_enable_by_a_4_byte_write_of_the_header_counts() -> None:
    rig = Rig(enabled=False)
    rig.setup.write(rig.function, rig.capability, ENABLE << 16)
    assert rig.msix.enabled


def test_enable_by_a_1_byte_write_counts() -> None:
    rig = Rig(enabled=False)
    rig.setup.write(rig.function, rig.capability + 3, 0x80, 1)
    assert rig.msix.enabled


def test_disabled_raises_nothing_and_keeps_nothing() -> None:
    rig = Rig(enabled=False)
    rig.program(0)
    rig.msix.raise_vector(0)
    rig.control(ENABLE)
    assert rig.interrupts.messages == []
    assert rig.msix.pending_bits == 0


@pytest.mark.parametrize("vector", [3, 4, 0x7FFF, 0xFFFF, -1, 1 << 20])
def test_row_43_vector_past_the_table_raises_nothing(vector: int) -> None:
    rig = Rig(3)
    for v in range(3):
        rig.program(v)
    rig.msix.raise_vector(vector)
    rig.msix.clear_pending(vector)
    assert rig.msix.message(vector) is None
    assert rig.msix.pending_bits == 0
    assert rig.interrupts.messages == []
    assert rig.read(0x1000, 8) == 0


def test_row_45_masked_vector_is_pending_and_fires_once_on_unmask() -> None:
    rig = Rig()
    rig.program(2, masked=True)
    rig.msix.raise_vector(2)
    rig.msix.raise_vector(2)
    assert rig.interrupts.messages == []
    assert rig.read(0x1000) == 0b100
    rig.mask(2, False)
    assert rig.interrupts.messages == [MESSAGE]
    assert rig.read(0x1000) == 0


def test_row_45_function_mask_keeps_all_vectors_pending() -> None:
    rig = Rig()
    for v in range(3):
        rig.program(v, MsiMessage(addr=0xFEE0_0000, data=v))
    rig.control(ENABLE | FUNCTION_MASK)
    for v in (2, 0):
        rig.msix.raise_vector(v)
    assert rig.interrupts.messages == []
    rig.control(ENABLE)
    assert [m.data for m in rig.interrupts.messages] == [0, 2]


def test_function_unmask_does_not_fire_masked_entries() -> None:
    rig = Rig()
    rig.program(0, masked=True)
    rig.control(ENABLE | FUNCTION_MASK)
    rig.msix.raise_vector(0)
    rig.control(ENABLE)
    assert rig.interrupts.messages == []
    assert rig.msix.pending_bits == 1


def test_row_45_vector_changed_while_in_use_delivers_the_new_message() -> None:
    rig = Rig()
    rig.program(0)
    rig.msix.raise_vector(0)
    rig.mask(0, True)
    rig.msix.raise_vector(0)
    rig.write(8, 0x99)
    rig.mask(0, False)
    assert [m.data for m in rig.interrupts.messages] == [0x41, 0x99]


def test_disable_drops_what_was_pending() -> None:
    rig = Rig()
    rig.program(0, masked=True)
    rig.msix.raise_vector(0)
    rig.control(0)
    rig.control(ENABLE)
    rig.mask(0, False)
    assert rig.interrupts.messages == []


def test_clear_pending_takes_an_interrupt_back() -> None:
    rig = Rig()
    rig.program(0, masked=True)
    rig.msix.raise_vector(0)
    rig.msix.clear_pending(0)
    rig.mask(0, False)
    assert rig.interrupts.messages == []


def test_vectors_above_63_show_in_the_second_word() -> None:
    rig = Rig(130)
    rig.msix.raise_vector(64)
    rig.msix.raise_vector(129)
    assert [rig.read(0x1000 + 8 * i, 8) for i in range(3)] == [0, 1, 2]
    assert rig.read(0x1010, 1) == 2


def test_pending_bits_are_read_only() -> None:
    rig = Rig()
    rig.msix.raise_vector(0)
    rig.write(0x1000, 0xFFFF_FFFF)
    assert rig.read(0x1000) == 1


def test_table_reads_any_natural_width() -> None:
    rig = Rig()
    rig.program(1, MsiMessage(addr=0x1122_3344_FEE0_5678 & ~3, data=0x99AA_BBCC))
    assert rig.read(16, 8) == 0x1122_3344_FEE0_5678
    assert rig.read(20) == 0x1122_3344
    assert rig.read(24, 2) == 0xBBCC
    assert rig.read(27, 1) == 0x99


def test_8_byte_write_sets_two_words() -> None:
    rig = Rig()
    rig.write(0, 0x1_FEE0_1000, 8)
    rig.write(8, 0x41, 8)
    assert rig.msix.message(0) == MsiMessage(addr=0x1_FEE0_1000, data=0x41)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (2, 4), (4, 8), (1, 1)])
def test_write_of_a_wrong_width_or_alignment_has_no_effect(offset: int, size: int) -> None:
    rig = Rig()
    rig.write(offset, (1 << (8 * size)) - 1, size)
    assert rig.read(0, 8) == 0


@pytest.mark.parametrize(("offset", "size"), [(1, 2), (2, 4), (4, 8), (0x1001, 2)])
def test_unaligned_read_gives_ones(offset: int, size: int) -> None:
    assert Rig().read(offset, size) == (1 << (8 * size)) - 1


def test_reserved_bits_stay_zero() -> None:
    rig = Rig()
    rig.write(0, 0xFFFF_FFFF)
    rig.write(12, 0xFFFF_FFFF)
    assert rig.read(0) == 0xFFFF_FFFC
    assert rig.read(12) == 1


@pytest.mark.parametrize("offset", [47, 48, 49, 52, 0xFFF, 0x1008, 0x1FFF])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_row_44_access_past_table_and_pba_is_harmless(offset: int, size: int) -> None:
    rig = Rig(3)
    rig.write(offset, 0, size)
    value = rig.read(offset, size)
    inside_table = offset < 48 and size == 1
    assert value in ((0,) if inside_table or offset % size == 0 else ((1 << (8 * size)) - 1,))
    assert [rig.read(16 * v + 12) for v in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("size", [3, 5, 6, 7])
def test_row_50_odd_widths_read_ones_and_write_nothing(size: int) -> None:
    rig = Rig()
    rig.write(0, (1 << (8 * size)) - 1, size)
    assert rig.read(0, size) == (1 << (8 * size)) - 1
    assert rig.read(0, 8) == 0


def test_table_does_not_answer_with_memory_decoding_off() -> None:
    rig = Rig()
    rig.program(0)
    rig.setup.write(rig.function, COMMAND, 4, 2)
    rig.mask(0, True)
    rig.msix.raise_vector(0)
    assert rig.interrupts.messages == [MESSAGE]


def test_watcher_hears_of_each_change_of_the_message_only() -> None:
    rig = Rig()
    heard: list[MsiMessage | None] = []
    rig.msix.watch(0, lambda: heard.append(rig.msix.message(0)))
    rig.program(1)
    assert heard == []
    rig.program(0, masked=True)
    assert heard == []
    rig.mask(0, False)
    rig.mask(0, False)
    rig.write(8, 0x99)
    rig.control(ENABLE | FUNCTION_MASK)
    rig.control(0)
    assert heard == [MESSAGE, MsiMessage(addr=MESSAGE.addr, data=0x99), None]


def test_watcher_may_use_the_vectors() -> None:
    rig = Rig()
    rig.msix.watch(0, lambda: rig.msix.raise_vector(0))
    rig.program(0)
    assert rig.interrupts.messages == [MESSAGE]


def test_watcher_taken_back_hears_nothing_and_the_other_one_does() -> None:
    rig = Rig()
    heard: list[str] = []
    first = rig.msix.watch(0, lambda: heard.append("first"))
    rig.msix.watch(0, lambda: heard.append("second"))
    rig.msix.unwatch(first)
    rig.msix.unwatch(first)
    rig.mask(0, False)
    assert heard == ["second"]


def test_watcher_taken_back_by_the_one_before_it_may_still_be_called_but_nothing_breaks() -> None:
    rig = Rig()
    rig.msix.watch(0, lambda: rig.msix.unwatch(second))
    second = rig.msix.watch(0, lambda: None)
    rig.mask(0, False)


def test_interrupts_changed_is_called_for_enable_not_for_mask() -> None:
    rig = Rig()
    rig.control(ENABLE | FUNCTION_MASK)
    assert rig.function.calls == []
    rig.control(0)
    assert rig.function.calls == [("interrupts",)]


def test_reset_masks_disables_and_tells_watchers() -> None:
    rig = Rig()
    rig.program(0)
    rig.msix.raise_vector(1)
    heard: list[MsiMessage | None] = []
    rig.msix.watch(0, lambda: heard.append(rig.msix.message(0)))
    with rig.function.lock:
        rig.function.reset()
    assert not rig.msix.enabled
    assert heard == [None]
    assert rig.read(0x1000) == 0
    assert [rig.read(4 * i) for i in range(4)] == [0, 0, 0, 1]


ACTION = st.one_of(
    st.tuples(st.just("raise"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("mask"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("data"), st.integers(0, 2), st.integers(0, 255)),
    st.tuples(st.just("control"), st.just(0), st.sampled_from([0, ENABLE, ENABLE | FUNCTION_MASK, FUNCTION_MASK])),
)


@given(actions=st.lists(ACTION, max_size=60))
def test_delivery_follows_the_model_under_any_sequence(actions: list[tuple[str, int, int]]) -> None:
    rig = Rig()
    masked, pending, data, control = [1, 1, 1], [False] * 3, [0, 0, 0], ENABLE
    expected: list[int] = []
    for what, v, value in actions:
        if what == "raise":
            rig.msix.raise_vector(v)
            pending[v] |= bool(control & ENABLE)
        elif what == "mask":
            rig.mask(v, bool(value))
            masked[v] = value
        elif what == "data":
            rig.write(16 * v + 8, value)
            data[v] = value
        else:
            rig.control(value)
            control = value
            if not control & ENABLE:
                pending = [False] * 3
        for n in range(3):
            if pending[n] and control == ENABLE and not masked[n]:
                pending[n] = False
                expected.append(data[n])
        assert [m.data for m in rig.interrupts.messages] == expected
        assert rig.read(0x1000) == sum(bit << n for n, bit in enumerate(pending))


@given(
    accesses=st.lists(
        st.tuples(st.integers(0, 0x1FFF), st.sampled_from([1, 2, 3, 4, 8]), st.integers(0, 2**64 - 1)), max_size=40
    )
)
def test_any_access_is_bounded_and_never_raises(accesses: list[tuple[int, int, int]]) -> None:
    rig = Rig(5)
    for offset, size, value in accesses:
        rig.write(offset, value & ((1 << (8 * size)) - 1), size)
        assert 0 <= rig.read(offset, size) < 1 << (8 * size)


def test_write_of_an_entry_looks_at_its_own_watchers_only() -> None:
    rig = Rig(1024)
    told: list[int] = []
    rig.msix.watch(0, lambda: told.append(0))
    alone = instructions(lambda: rig.program(0))
    for vector in range(1, 1024):
        rig.msix.watch(vector, lambda v=vector: told.append(v))  # type: ignore[misc]
    again = instructions(lambda: rig.program(0, MsiMessage(addr=0xFEE0_2000, data=0x42)))
    assert again <= 1.3 * alone
    assert set(told) == {0}
