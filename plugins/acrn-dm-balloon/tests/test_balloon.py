"""The balloon under a driver, without a virtual machine: what becomes of the guest's pages."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_balloon
import pytest
from acrn_dm_balloon.device import BalloonDevice
from acrn_dm_balloon.pages import runs

from acrn_dm import ConfigError, GuestError
from acrn_dm.testing import DriverQueue, SimMachine, VirtioDriver, assert_device_conforms

INFLATE, DEFLATE, STATS, REPORTS = 0, 1, 2, 4
STATS_VQ, DEFLATE_ON_OOM, HINT, PAGE_POISON, PAGE_REPORTING = (1 << bit for bit in range(1, 6))
NEEDS_RESET = 64
PAGE = 4096
MIB = 1 << 20
AT = 8 * MIB  # pages that nothing else uses: the driver's heap begins at 1 MiB


def machine() -> SimMachine:
    return SimMachine(plugins=[acrn_dm_balloon])


class Guest:
    """A machine with a balloon."""

    def __init__(self, m: SimMachine, folder: Path, options: str = "") -> None:
        self.machine, self.control = m, folder / "control"
        function = m.add("virtio-balloon", f"control={self.control},{options}", slot=3)
        self.device: BalloonDevice = function.device  # type: ignore[attr-defined]
        self.driver: VirtioDriver = m.driver(3)

    def queue(self, index: int) -> DriverQueue:
        return self.driver.queue(index)

    def say(self, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.control))
            client.send(f"{line}\n".encode())
            self.machine.settle()
            return client.recv(1 << 16).decode().rstrip("\n")

    def inflate(self, *numbers: int) -> int:
        return self.queue(INFLATE).transfer([struct.pack(f"<{len(numbers)}I", *numbers)]).written

    def fill(self, gpa: int = AT, length: int = 4 * PAGE) -> None:
        self.machine.memory.write(gpa, b"x" * length)

    def resident(self) -> int:
        return os.fstat(self.machine.memory.regions[0].fd).st_blocks * 512

    def pages(self, count: int = 4) -> str:
        """Which pages from AT on are as they were filled (x), and which are empty (-)."""
        found = [self.machine.memory.read(AT + at * PAGE, PAGE) for at in range(count)]
        return "".join({b"x" * PAGE: "x", bytes(PAGE): "-"}.get(page, "?") for page in found)

    def report(self, gpa: int, length: int) -> None:
        """A chain whose writable buffer is the free memory itself."""
        queue = self.queue(REPORTS)
        queue.ring.add_chain([], [(gpa, length)])
        queue.ring.publish()
        queue.kick()
        self.machine.settle()
        assert [written for _, written in queue.ring.used()] == [0]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with machine() as m:
        it = Guest(m, tmp_path)
        it.driver.start()
        it.fill()
        yield it


@pytest.mark.stress
def test_device_conforms() -> None:
    kind = next(iter(acrn_dm_balloon.acrn_dm_device_types()))
    assert_device_conforms(lambda machine: machine.add(kind, slot=3))


def test_pages_that_come_go_back_to_the_host(guest: Guest) -> None:
    """d.bal.pfn, d.bal.ack."""
    guest.fill(AT + MIB, MIB)
    before = guest.resident()
    assert guest.inflate(*range((AT + MIB) // PAGE, (AT + 2 * MIB) // PAGE)) == 0
    assert before - guest.resident() > MIB - 16 * PAGE  # the ring was touched for the first time


def test_pages_beside_stay(guest: Guest) -> None:
    guest.inflate(AT // PAGE + 1, AT // PAGE + 2)
    assert guest.pages() == "x--x"


def test_pages_in_any_order_and_twice(guest: Guest) -> None:
    first = AT // PAGE
    guest.inflate(first + 3, first, first + 3, first + 1)
    assert guest.pages() == "--x-"


def test_pages_go_in_as_few_pieces_as_there_are_runs() -> None:
    assert list(runs([7, 3, 2, 7, 9, 1])) == [(1, 3), (7, 1), (9, 1)]
    assert list(runs([])) == []


def test_deflated_page_is_used_again(guest: Guest) -> None:
    guest.inflate(AT // PAGE)
    assert guest.queue(DEFLATE).transfer([struct.pack("<I", AT // PAGE)]).written == 0
    guest.fill()
    assert guest.pages() == "xxxx"


@pytest.mark.parametrize(
    "data", [b"", b"abc", b"\xff" * 4, struct.pack("<I", 16 * MIB // PAGE), b"\xff\xff\x0f\x00" * 300]
)
def test_numbers_outside_ram_cost_nothing(guest: Guest, data: bytes) -> None:
    before = guest.resident()
    guest.queue(INFLATE).transfer([data, b""] if data else [b"", b"x"])
    assert not guest.driver.status & NEEDS_RESET
    assert guest.resident() >= before


def test_ram_around_a_wrong_number_goes_all_the_same(guest: Guest) -> None:
    guest.inflate(AT // PAGE, 0xFFFF_FFFF, AT // PAGE + 2)
    assert guest.pages() == "-x-x"


def test_guest_that_gives_its_own_ring_away_is_nobody_else_s_trouble(guest: Guest) -> None:
    guest.inflate(*range(16 * MIB // PAGE))
    guest.driver.start()
    guest.fill()
    assert guest.inflate(AT // PAGE) == 0


def test_target_is_a_number_of_pages_and_changes_with_a_notification(guest: Guest) -> None:
    """d.bal.num_pages_notify."""
    assert guest.driver.read_config(0, 4) == bytes(4)
    before = guest.driver.config_interrupts
    assert guest.say("size 2M") == "ok"
    assert struct.unpack("<I", guest.driver.read_config(0, 4)) == (512,)
    assert guest.driver.config_interrupts == before + 1


@pytest.mark.parametrize("line", ["size", "size -1", "size 1", "size 16M", "size 1Z", "size 99999999999T", "take 1M"])
def test_size_that_can_not_be_is_refused(guest: Guest, line: str) -> None:
    assert guest.say(line).startswith("error: ")
    assert guest.driver.read_config(0, 4) == bytes(4)


def test_target_may_be_an_option(tmp_path: Path) -> None:
    with machine() as m:
        assert struct.unpack("<I", Guest(m, tmp_path, "size=4M").driver.read_config(0, 4)) == (1024,)


def test_target_of_the_whole_guest_is_an_error(tmp_path: Path) -> None:
    with machine() as m, pytest.raises(ConfigError, match="the guest has 16777216 bytes in all"):
        Guest(m, tmp_path, "size=16M")


def test_actual_counts_when_its_last_byte_is_written(guest: Guest) -> None:
    """balloon.legacy.actual_msb."""
    for at, byte in enumerate(b"\x01\x02\x00"):
        guest.driver.registers.write_config(4 + at, 1, byte)
    assert "actual=0 " in guest.say("info")
    guest.driver.registers.write_config(7, 1, 0)
    assert f"actual={0x201 * PAGE} " in guest.say("info")


def test_fields_that_are_the_device_s_can_not_be_written(guest: Guest) -> None:
    guest.driver.registers.write_config(0, 4, 77)
    guest.driver.registers.write_config(8, 4, 77)
    assert guest.driver.read_config(0, 16) == bytes(16)


def stats(*entries: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<HQ", *entry) for entry in entries)


def test_statistics_are_held_until_they_are_asked_for(guest: Guest) -> None:
    """d.bal.stats_flow."""
    queue = guest.queue(STATS)
    queue.send([stats((4, 1000), (5, 2000))])
    queue.kick()
    guest.machine.settle()
    assert queue.completed() == []
    answer = guest.say("stats")
    assert answer.startswith("age=")
    assert answer.split()[1:] == ["free=1000", "total=2000"]
    assert [done.written for done in queue.completed()] == [0]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (stats((5, 2), (4, 1)), "free=1 total=2"),
        (stats((0xFFFF, 9), (4, 1)), "free=1"),
        (stats((4, 1)) + b"rest", "free=1"),
        (stats(*[(99, 0)] * 200), ""),
    ],
    ids=["any order", "unknown tag", "piece at the end", "long"],
)
def test_entries_that_are_known_count(guest: Guest, data: bytes, shown: str) -> None:
    """balloon.stats.unknown_tag, balloon.stats.any_order."""
    guest.queue(STATS).send([data])
    guest.queue(STATS).kick()
    assert guest.say("stats").partition(" ")[2] == shown


def test_driver_that_sends_two_buffers_gets_the_older_one_back(guest: Guest) -> None:
    queue = guest.queue(STATS)
    tokens = [queue.send([stats((4, n))]) for n in range(3)]
    queue.kick()
    guest.machine.settle()
    assert [done.token for done in queue.completed()] == tokens[:2]


def test_first_buffer_of_a_legacy_driver_is_nothing() -> None:
    """balloon.legacy.stats_first, balloon.legacy.must_tell_host."""
    with machine() as m:
        device = m.add("virtio-balloon", slot=3).device  # type: ignore[attr-defined]
        driver = m.driver_legacy(3)
        driver.start()
        seen = []
        for n in (1, 2):
            driver.queue(STATS).send([stats((4, n))])
            driver.queue(STATS).kick()
            m.settle()
            seen.append(dict(device.stats.values))
        assert seen == [{}, {"free": 2}]


def test_statistics_end_with_the_driver(guest: Guest) -> None:
    guest.queue(STATS).send([stats((4, 1))])
    guest.queue(STATS).kick()
    guest.machine.settle()
    guest.driver.reset()
    assert guest.say("stats") == "none yet"


def test_reported_pages_go_back_to_the_host(guest: Guest) -> None:
    """d.bal.report_ack."""
    guest.report(AT + PAGE, 2 * PAGE)
    assert guest.pages() == "x--x"
    assert f"reported={2 * PAGE}" in guest.say("info")


def test_reported_pages_keep_a_poison(guest: Guest) -> None:
    """balloon.report.poison."""
    guest.driver.registers.write_config(12, 4, 0x78787878)
    guest.report(AT, 4 * PAGE)
    assert guest.pages() == "xxxx"


def test_poison_that_was_not_negotiated_is_none(guest: Guest) -> None:
    guest.driver.start(PAGE_REPORTING)
    guest.driver.registers.write_config(12, 4, 1)
    guest.report(AT, 4 * PAGE)
    assert guest.pages() == "----"


@pytest.mark.parametrize("accepted", [PAGE_REPORTING | STATS_VQ, PAGE_REPORTING])
def test_driver_that_counts_the_queues_that_it_uses_reports_on_the_last(guest: Guest, accepted: int) -> None:
    """Linux: its number is 3 with statistics, 2 without."""
    last = 3 if accepted & STATS_VQ else 2
    guest.driver.start(accepted, queues=range(last + 1))
    guest.driver.queues[REPORTS] = guest.queue(last)
    guest.report(AT, PAGE)
    assert guest.pages() == "-xxx"


def test_queue_of_a_feature_that_was_not_negotiated_is_a_fault(guest: Guest) -> None:
    guest.driver.start(0)
    guest.queue(REPORTS).send([], [64])
    guest.queue(REPORTS).kick()
    guest.machine.settle()
    assert guest.driver.status & NEEDS_RESET
    assert [type(error) for _, error in guest.machine.failures] == [GuestError]


def test_memory_that_somebody_keeps_is_counted_and_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with machine() as m:
        m.memory.keeper = "the hypervisor"
        guest = Guest(m, tmp_path)
        guest.driver.start()
        guest.fill()
        guest.inflate(AT // PAGE)
        assert guest.pages() == "xxxx"
        assert f"given_back=0 reported=0 kept={PAGE}" in guest.say("info")
        assert "the hypervisor keeps the guest's pages" in caplog.text


@pytest.mark.parametrize(
    ("options", "offered", "queues"),
    [
        ("", STATS_VQ | PAGE_REPORTING | PAGE_POISON, 5),
        ("deflate_on_oom=on", STATS_VQ | DEFLATE_ON_OOM | PAGE_REPORTING | PAGE_POISON, 5),
        ("report=off", STATS_VQ, 3),
        ("report=off,stats=off", 0, 2),
    ],
)
def test_what_is_offered_follows_the_options(tmp_path: Path, options: str, offered: int, queues: int) -> None:
    with machine() as m:
        driver = Guest(m, tmp_path, options).driver
        assert driver.registers.offered() & 0x3F == offered
        assert len(driver.all_queues()) == queues


def test_hinting_is_refused_with_the_reason() -> None:
    with machine() as m, pytest.raises(ConfigError, match="free_page_hint is for migration"):
        m.add("virtio-balloon", "free_page_hint=on", slot=3)


def test_script_sets_the_target_when_the_driver_is_there(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("size 1M\n")
    with machine() as m:
        guest = Guest(m, tmp_path, f"script={tmp_path / 'script'}")
        assert guest.driver.read_config(0, 4) == bytes(4)
        guest.driver.start()
        assert struct.unpack("<I", guest.driver.read_config(0, 4)) == (256,)
