"""The configuration device, as firmware asks it: by port and by DMA."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.base.errors import GuestError
from acrn_dm.devices.platform import fw_cfg
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange

DESCRIPTOR, BUFFER = 0x1000, 0x2000
ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
SIZE = 2 << 20


class Rig:
    """The device with two items and a file."""

    def __init__(self) -> None:
        self.made = 0
        self.memory = GuestMemory.allocate([MemoryRange(gpa=0, size=SIZE)])
        self.device = fw_cfg.FwCfg()
        self.device.attach(self.memory)
        self.device.fill(fw_cfg.contents({0x15: b"quiet\0"}, {"etc/a": b"abc", "etc/late": self.late}, vcpus=3))

    def late(self) -> bytes:
        self.made += 1
        return bytes([self.made] * 4)

    def select(self, number: int) -> None:
        self.device.write(0, 2, number)

    def take(self, length: int) -> bytes:
        return bytes(self.device.read(1, 1) for _ in range(length))

    def transfer(self, control: int, length: int, address: int = BUFFER, at: int = DESCRIPTOR) -> int:
        """Do what a descriptor says; return its control word afterwards."""
        self.memory.write(at, struct.pack(">IIQ", control, length, address))
        self.device.write(4, 4, int.from_bytes((at >> 32).to_bytes(4, "big"), "little"))
        self.device.write(8, 4, int.from_bytes((at & 0xFFFF_FFFF).to_bytes(4, "big"), "little"))
        return int.from_bytes(self.memory.read(at, 4), "big")


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.memory.close()


def test_signature_and_features(rig: Rig) -> None:
    rig.select(0)
    assert rig.take(4) == b"QEMU"
    rig.select(1)
    assert rig.take(4) == b"\3\0\0\0"


def test_dma_port_reads_its_own_signature(rig: Rig) -> None:
    assert rig.device.read(4, 4).to_bytes(4, "big") + rig.device.read(8, 4).to_bytes(4, "big") == b"QEMU CFG"


def test_item_is_read_byte_by_byte_and_ends_in_zeros(rig: Rig) -> None:
    rig.select(0x15)
    assert rig.take(9) == b"quiet\0\0\0\0"


def test_selecting_starts_at_the_beginning_again(rig: Rig) -> None:
    rig.select(0x15)
    rig.take(3)
    rig.select(0x15)
    assert rig.take(2) == b"qu"


def test_item_that_is_not_there_is_zeros(rig: Rig) -> None:
    rig.select(0x7777)
    assert rig.take(3) == bytes(3)


def test_processors_are_counted(rig: Rig) -> None:
    for number in (0x05, 0x0F):
        rig.select(number)
        assert rig.take(2) == b"\3\0"


def test_directory_names_the_files(rig: Rig) -> None:
    rig.select(0x19)
    assert rig.take(4) == struct.pack(">I", 2)
    assert struct.unpack(">IHH56s", rig.take(64)) == (3, 0x20, 0, b"etc/a".ljust(56, b"\0"))
    assert struct.unpack(">IHH56s", rig.take(64)) == (4, 0x21, 0, b"etc/late".ljust(56, b"\0"))


def test_late_item_is_made_when_it_is_selected(rig: Rig) -> None:
    told = rig.made
    rig.select(0x21)
    assert rig.take(4) == bytes([told + 1] * 4)
    rig.select(0x21)
    assert rig.take(1) == bytes([told + 2])


def test_dma_selects_and_reads(rig: Rig) -> None:
    assert rig.transfer(0x15 << 16 | SELECT | READ, 6) == 0
    assert rig.memory.read(BUFFER, 6) == b"quiet\0"


def test_dma_goes_on_where_the_last_read_ended(rig: Rig) -> None:
    rig.select(0x15)
    rig.take(1)
    assert rig.transfer(SKIP, 2) == 0
    assert rig.transfer(READ, 3) == 0
    assert rig.memory.read(BUFFER, 3) == b"et\0"


def test_dma_behind_the_item_writes_zeros(rig: Rig) -> None:
    rig.memory.write(BUFFER, b"\xff" * 8)
    assert rig.transfer(0x20 << 16 | SELECT | READ, 8) == 0
    assert rig.memory.read(BUFFER, 8) == b"abc\0\0\0\0\0"


def test_dma_that_selects_only_succeeds(rig: Rig) -> None:
    assert rig.transfer(0x20 << 16 | SELECT, 0) == 0
    assert rig.take(3) == b"abc"


@pytest.mark.parametrize(
    ("control", "length", "address"),
    [(READ, 16, SIZE - 8), (READ, 1 << 31 | 1, BUFFER), (WRITE, 4, BUFFER), (READ, 4, 1 << 63)],
    ids=["past memory", "too long", "write", "no memory"],
)
def test_dma_that_cannot_be_done_says_so(rig: Rig, control: int, length: int, address: int) -> None:
    assert rig.transfer(control, length, address) == ERROR


def test_dma_that_is_too_long_writes_nothing(rig: Rig) -> None:
    rig.memory.write(BUFFER, b"\xff")
    rig.transfer(0x15 << 16 | SELECT | READ, 1 << 31 | 1)
    assert rig.memory.read(BUFFER, 1) == b"\xff"


def test_descriptor_outside_memory_is_the_guests_error(rig: Rig) -> None:
    with pytest.raises(GuestError):
        rig.device.write(8, 4, 0xFFFF_FFFF)


def test_reset_forgets_the_selection_and_half_an_address(rig: Rig) -> None:
    rig.select(0x15)
    rig.device.write(4, 4, 0xFFFF_FFFF)
    rig.device.reset()
    assert rig.take(1) == b"\0"
    rig.memory.write(DESCRIPTOR, struct.pack(">IIQ", 0x15 << 16 | SELECT | READ, 1, BUFFER))
    rig.device.write(8, 4, int.from_bytes(DESCRIPTOR.to_bytes(4, "big"), "little"))
    assert rig.memory.read(BUFFER, 1) == b"q"


@given(
    accesses=st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from([1, 2, 4]), st.integers(0, 0xFFFF_FFFF), st.booleans()),
        max_size=40,
    )
)
def test_any_accesses_raise_nothing_but_guest_errors(accesses: list[tuple[int, int, int, bool]]) -> None:
    device = fw_cfg.FwCfg()
    device.fill(fw_cfg.contents({}, {"etc/a": b"abc"}, vcpus=1))
    for offset, size, value, write in accesses:
        if write:
            device.write(offset, size, value & ((1 << 8 * size) - 1))
        else:
            assert 0 <= device.read(offset, size) < 1 << 8 * size
