"""MSI: one vector, live registers, mask and pending."""

import pytest

from acrn_dm.base.irq import MsiMessage
from acrn_dm.pci.msi import MsiForm
from tests.pci.parts import Interrupts, Probe, Setup

MESSAGE = MsiMessage(addr=0xFEE0_2000, data=0x4321)


class Rig:
    """A function with MSI, addressed through the bus."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.function = Probe()
        self.function.add_capability(0x09, bytes(2))
        self.msi = self.function.add_msi()
        self.setup = Setup(self.function)
        self.at = self.setup.capability(self.function, 0x05)
        self.write(4, MESSAGE.addr)
        self.write(12, MESSAGE.data, 2)
        if enabled:
            self.write(2, 1, 2)

    @property
    def interrupts(self) -> Interrupts:
        return self.setup.interrupts

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.setup.write(self.function, self.at + offset, value, size)

    def read(self, offset: int, size: int = 4) -> int:
        return self.setup.read(self.function, self.at + offset, size)


def test_control_offers_64_bit_mask_and_one_vector() -> None:
    rig = Rig(enabled=False)
    rig.write(2, 0xFFFF, 2)
    assert rig.read(2, 2) == 0x0181


def test_enabled_vector_is_delivered() -> None:
    rig = Rig()
    rig.msi.raise_()
    assert rig.interrupts.messages == [MESSAGE]


def test_disabled_raises_nothing_and_keeps_nothing() -> None:
    rig = Rig(enabled=False)
    rig.msi.raise_()
    rig.write(2, 1, 2)
    assert rig.interrupts.messages == []


@pytest.mark.parametrize(("offset", "value"), [(4, 0xFEE0_3000), (8, 1), (12, 0x55)])
def test_new_address_or_data_counts_without_writing_control(offset: int, value: int) -> None:
    rig = Rig()
    rig.write(offset, value, 4 if offset < 12 else 2)
    rig.msi.raise_()
    assert rig.interrupts.messages == [rig.msi.message(0)]
    assert rig.interrupts.messages != [MESSAGE]


def test_masked_vector_is_pending_and_fires_on_unmask() -> None:
    rig = Rig()
    rig.write(16, 1)
    rig.msi.raise_()
    assert rig.interrupts.messages == []
    assert rig.read(20) == 1
    assert rig.read(20, 1) == 1
    assert rig.read(21, 1) == 0
    rig.write(16, 0)
    assert rig.interrupts.messages == [MESSAGE]
    assert rig.read(20) == 0


def test_pending_register_is_read_only() -> None:
    rig = Rig()
    rig.write(20, 0xFFFF_FFFF)
    assert rig.read(20) == 0


def test_watcher_hears_of_the_change() -> None:
    rig = Rig()
    heard: list[MsiMessage | None] = []
    rig.msi.watch(0, lambda: heard.append(rig.msi.message(0)))
    rig.write(16, 1)
    rig.write(16, 0)
    assert heard == [None, MESSAGE]


def test_reset_disables_and_unmasks() -> None:
    rig = Rig()
    rig.write(16, 1)
    rig.msi.raise_()
    with rig.function.lock:
        rig.function.reset()
    assert not rig.msi.enabled
    assert [rig.read(n) for n in (4, 16, 20)] == [0, 0, 0]


def test_enabling_closes_the_intx_pin() -> None:
    function = Probe()
    function.use_intx()
    function.add_msi()
    setup = Setup(function)
    assert function.intx is not None
    function.intx.set(True)
    setup.write(function, setup.capability(function, 5) + 2, 1, 2)
    assert setup.interrupts.levels == [(16, True), (16, False)]


@pytest.mark.parametrize(
    ("control", "length", "data"),
    [(0x0180, 24, 12), (0x0080, 14, 12), (0x0100, 20, 8), (0x0000, 10, 8), (0x018A, 24, 12)],
)
def test_form_is_what_the_control_register_says(control: int, length: int, data: int) -> None:
    form = MsiForm.of(control)
    assert (form.length, form.data) == (length, data)
    assert form.body == control.to_bytes(2, "little") + bytes(length - 4)
    assert len(form.writable) <= len(form.body)


def test_reserved_number_of_vectors_is_none() -> None:
    with pytest.raises(ValueError, match="reserved"):
        MsiForm.of(6 << 1)


@pytest.mark.parametrize(
    ("used", "sent"), [(0, [0x4320]), (1, [0x4320, 0x4321]), (2, [0x4320, 0x4321, 0x4322, 0x4323])]
)
def test_vectors_differ_in_the_low_bits_of_the_data_as_many_as_the_driver_uses(used: int, sent: list[int]) -> None:
    function = Probe()
    form = MsiForm(log_vectors=2, wide=False)
    msi = function.take_msi(function.add_capability(0x05, form.body, form.writable), form)
    setup = Setup(function)
    at = setup.capability(function, 0x05)
    setup.write(function, at + 4, 0xFEE0_0000)
    setup.write(function, at + form.data, 0x4320, 2)
    setup.write(function, at + 2, 1 | used << 4, 2)
    for vector in range(4):
        msi.raise_vector(vector)
    assert [message.data for message in setup.interrupts.messages] == sent
    setup.write(function, at + form.mask, 1)
    msi.raise_vector(0)
    assert setup.read(function, at + form.pending) & 1
    assert len(setup.interrupts.messages) == len(sent)
