"""Persistent memory under a driver, without a virtual machine."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_pmem
import pytest

from acrn_dm import ConfigError, HostError
from acrn_dm.testing import SimMachine, VirtioDriver, assert_device_conforms

MIB = 1 << 20
NEEDS_RESET = 64
FLUSH = struct.pack("<I", 0)


def machine() -> SimMachine:
    return SimMachine(plugins=[acrn_dm_pmem])


class Guest:
    """A machine whose driver has started."""

    def __init__(self, m: SimMachine, file: Path, options: str = "size=4M") -> None:
        self.machine, self.file = m, file
        m.add("virtio-pmem", f"file={file},{options}", slot=3)
        self.driver: VirtioDriver = m.driver(3)
        self.driver.start()
        self.gpa, self.size = struct.unpack("<QQ", self.driver.read_config(0, 16))

    def flush(self, request: bytes = FLUSH) -> int:
        done = self.driver.queue(0).transfer([request], [4])
        assert done.written == 4
        return int(struct.unpack("<i", done.data)[0])


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with machine() as m:
        yield Guest(m, tmp_path / "file")


def test_device_conforms(tmp_path: Path) -> None:
    kind = next(iter(acrn_dm_pmem.acrn_dm_device_types()))
    files = iter(range(1 << 20))

    def build(m: SimMachine) -> object:
        return m.add(kind, f"file={tmp_path}/{next(files)},size=2M", slot=3)

    assert_device_conforms(build)


def test_file_lies_in_the_guest_s_memory(guest: Guest) -> None:
    guest.machine.memory.write(guest.gpa + 3 * MIB, b"hello")
    assert guest.file.read_bytes()[3 * MIB : 3 * MIB + 5] == b"hello"
    assert [(r.gpa, r.size) for r in guest.machine.vm.regions][-1] == (guest.gpa, 4 * MIB)


def test_place_is_beside_ram_and_aligned(guest: Guest) -> None:
    assert guest.size == 4 * MIB
    assert guest.gpa % (2 * MIB) == 0
    assert all(guest.gpa >= r.gpa + r.size for r in guest.machine.memory.regions[:-1])


def test_two_of_them_lie_beside_each_other(tmp_path: Path) -> None:
    with machine() as m:
        m.add("virtio-pmem", f"file={tmp_path / 'other'},size=2M", slot=4)
        guest = Guest(m, tmp_path / "file")
        other, size = struct.unpack("<QQ", m.driver(4).read_config(0, 16))
        assert other + size <= guest.gpa or guest.gpa + guest.size <= other


def test_buffers_of_a_request_may_lie_in_it(guest: Guest) -> None:
    """A guest reads a file of its own from a disk straight into persistent memory."""
    ring = guest.driver.queue(0).ring
    guest.machine.memory.write(guest.gpa, FLUSH)
    guest.machine.memory.write(guest.gpa + 8, b"\xff" * 4)
    ring.add_chain([(guest.gpa, 4)], [(guest.gpa + 8, 4)])
    ring.publish()
    guest.driver.queue(0).kick()
    guest.machine.settle()
    assert guest.file.read_bytes()[8:12] == bytes(4)


def test_content_outlives_machine_and_reboot(tmp_path: Path) -> None:
    with machine() as m:
        guest = Guest(m, tmp_path / "file")
        m.memory.write(guest.gpa, b"kept")
        m.reset()
        assert m.memory.read(guest.gpa, 4) == b"kept"
    with machine() as m:
        guest = Guest(m, tmp_path / "file", "")
        assert (guest.size, m.memory.read(guest.gpa, 4)) == (4 * MIB, b"kept")


def test_flush_reaches_the_file(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    assert guest.flush() == 0
    assert flushed == [str(guest.file)]


def test_one_flush_answers_all_who_wait(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    queue = guest.driver.queue(0)
    for _ in range(10):
        queue.send([FLUSH], [4])
    queue.kick()
    guest.machine.settle()
    assert [done.data for done in queue.completed()] == [bytes(4)] * 10
    assert len(flushed) == 1


def test_flush_that_fails_is_an_error_to_the_guest(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    assert guest.flush() == -1
    monkeypatch.undo()
    assert guest.flush() == 0


@pytest.mark.parametrize("request_", [b"", b"\1\0\0\0", b"\0\0\0", b"\xff" * 4])
def test_other_request_is_an_error(guest: Guest, request_: bytes) -> None:
    assert guest.flush(request_) == -1 if request_ else guest.driver.queue(0).transfer([], [4]).data == b"\xff" * 4


def test_response_without_room_needs_a_reset(guest: Guest) -> None:
    guest.driver.queue(0).send([FLUSH], [3])
    guest.driver.queue(0).kick()
    guest.machine.settle()
    assert guest.driver.status & NEEDS_RESET


def test_flush_has_a_loop_of_its_own(guest: Guest) -> None:
    assert "virtio-pmem-3:0" in guest.machine.io_loops


def test_file_of_another_machine_is_refused(guest: Guest) -> None:
    with machine() as m, pytest.raises(HostError, match="another machine has it"):
        Guest(m, guest.file)


def test_file_that_is_longer_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(6 * MIB))
    with machine() as m:
        assert Guest(m, tmp_path / "file", "size=2M").size == 6 * MIB


@pytest.mark.parametrize("length", [0, 1, MIB, 2 * MIB + 1])
def test_file_of_a_length_that_can_not_be_mapped_is_named(tmp_path: Path, length: int) -> None:
    (tmp_path / "file").write_bytes(bytes(length))
    with machine() as m, pytest.raises(HostError, match="no multiple of"):
        Guest(m, tmp_path / "file", "")


@pytest.mark.parametrize("text", ["", "file=/x,size=1M", "file=/x,size=0", "file=/x,size=3"])
def test_options_that_can_not_be_are_named(text: str) -> None:
    with machine() as m, pytest.raises(ConfigError):
        m.add("virtio-pmem", text, slot=3)


def test_check_names_what_is_missing(tmp_path: Path) -> None:
    with machine() as m:
        missing = m.add("virtio-pmem", f"file={tmp_path / 'no'}", slot=3).check()
        folder = m.add("virtio-pmem", f"file={tmp_path},size=2M", slot=4).check()
        made = m.add("virtio-pmem", f"file={tmp_path / 'no'},size=2M", slot=5).check()
    assert [line.partition(f"{tmp_path}")[2] for line in missing] == ["/no is not there; size=SIZE makes it"]
    assert folder[0].endswith("is no plain file that can be read and written")
    assert made == []


def test_hypervisor_that_keeps_pages_can_not_have_it(tmp_path: Path) -> None:
    with machine() as m:
        m.vm.pins_memory = True
        with pytest.raises(HostError, match="can't be added"):
            Guest(m, tmp_path / "file")
