"""Resets while the host has not finished what is in flight (rows reset.status_zero, reset.no_queue_access)."""

import logging
import threading
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing.driver import VirtioDriver
from acrn_dm.virtio.pci import transport as transport_pci
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.devices.virtio_blk.blk_rig import IN, OUT, Disk, disk, header, image
from tests.devices.virtio_blk.stuck import WAIT_S, Stuck, stuck
from tests.virtio.pause import pause, resume

pytestmark = pytest.mark.both_formats

RUNNING = 15  # the status of a modern driver that runs
LEGACY_RUNNING = 7
SECTOR = 512


def send(d: Disk, host: Stuck, *chains: tuple[list[bytes], list[int]]) -> list[list[tuple[int, int]]]:
    """Have *chains* taken by the device, one stuck in the host; returns their device-writable buffers."""
    for out, room in chains:
        d.queue.send(out, room)
    writable = [buffers for _, buffers, _ in d.queue._sent.values()]
    d.queue.kick()
    d.machine.io_loops["io"].step()
    assert host.entered.wait(WAIT_S)
    return writable


def ask_for_reset(driver: VirtioDriver) -> int:
    driver.status = 0
    return driver.status


def finish(d: Disk, host: Stuck) -> None:
    host.release.set()
    d.driver.reset()


@pytest.mark.parametrize("call", ["pwritev", "preadv", "fdatasync"])
def test_reset_returns_at_once_and_the_status_reads_zero_when_the_host_is_done(tmp_path: Path, call: str) -> None:
    with disk(str(image(tmp_path))) as d, stuck(call) as host:
        chain = {
            "pwritev": ([header(OUT), bytes(SECTOR)], [1]),
            "preadv": ([header(IN)], [SECTOR << 9, 1]),  # more than is read from the cache on the loop
            "fdatasync": ([header(4)], [1]),
        }[call]
        send(d, host, chain)
        assert ask_for_reset(d.driver) == RUNNING
        assert not host.release.is_set()
        finish(d, host)
        assert d.driver.status == 0
        d.driver.start()
        assert d.request(OUT, 1, bytes(SECTOR)).data == b"\0"


def test_other_registers_answer_during_a_reset(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d, stuck("pwritev") as host:
        send(d, host, ([header(OUT), bytes(SECTOR)], [1]))
        ask_for_reset(d.driver)
        assert d.driver.registers.read("num_queues") == 1
        assert d.driver.registers.read_config(0, 8) == 2048
        other = threading.Thread(target=lambda: answers.append(d.driver.registers.read("num_queues")))
        answers: list[int] = []
        other.start()
        other.join(WAIT_S)
        assert answers == [1], "another vCPU is not held up"


def test_driver_that_does_not_wait_gets_nowhere(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d, stuck("pwritev") as host:
        send(d, host, ([header(OUT), bytes(SECTOR)], [1]))
        ask_for_reset(d.driver)
        for status in (1, 3, 11, 15):
            d.driver.status = status
        d.driver.registers.notify(0)
        d.machine.main_loop.run_until_idle()
        assert (d.driver.status, host.calls) == (RUNNING, 1)
        finish(d, host)
        assert d.driver.status == 0


def test_nothing_is_written_into_memory_after_the_status_reads_zero(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d, stuck("preadv") as host:
        ((data, status),) = send(d, host, ([header(IN)], [SECTOR << 9, 1]))
        ring = d.queue.ring.layout
        ask_for_reset(d.driver)
        finish(d, host)
        places = [(ring.desc, 8192), data, status]
        for gpa, length in places:
            d.machine.memory.write(gpa, b"\xee" * length)
        d.machine.settle()
        assert all(d.machine.memory.read(gpa, length) == b"\xee" * length for gpa, length in places)
        assert sum(d.machine.interrupts.values()) == 0


def test_requests_that_no_thread_has_begun_are_dropped(tmp_path: Path) -> None:
    path = image(tmp_path)
    before = path.read_bytes()
    with disk(str(path)) as d, stuck("pwritev") as host:
        send(d, host, *[([header(OUT, n), b"new" + bytes(SECTOR - 3)], [1]) for n in range(40)])
        ask_for_reset(d.driver)
        finish(d, host)
        assert 1 <= host.calls <= 8
        assert path.read_bytes()[8 * SECTOR :] == before[8 * SECTOR :]


def test_acknowledged_write_is_kept_whatever_is_given_up(tmp_path: Path) -> None:
    path = image(tmp_path)
    with disk(str(path)) as d:
        assert d.write(3, b"k" * SECTOR) == 0
        with stuck("pwritev") as host:
            send(d, host, ([header(OUT, 4), b"x" * SECTOR], [1]))
            ask_for_reset(d.driver)
            finish(d, host)
        assert path.read_bytes()[3 * SECTOR :][:SECTOR] == b"k" * SECTOR


def test_reset_again_while_one_is_under_way_changes_nothing(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d, stuck("pwritev") as host:
        send(d, host, ([header(OUT), bytes(SECTOR)], [1]))
        assert [ask_for_reset(d.driver) for _ in range(5)] == [RUNNING] * 5
        finish(d, host)
        d.driver.start()
        assert d.request(IN, 0, room=SECTOR).data[-1] == 0


def test_failure_reported_during_a_reset_is_the_old_drivers(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d, stuck("pwritev") as host:
        send(d, host, ([header(OUT), bytes(SECTOR)], [1]))
        ask_for_reset(d.driver)
        d.device.fail(RuntimeError("too late"))
        assert d.machine.failures == []
        finish(d, host)
        assert d.driver.status == 0


# Legacy drivers do not look again


def legacy(d: Disk) -> VirtioPci:
    function = d.machine.bus.functions[0]
    assert isinstance(function, VirtioPci)
    return function


def by_status(d: Disk) -> None:
    d.driver.status = 0


def by_taking_the_queue_away(d: Disk) -> None:
    d.driver.registers.write("queue_select", 0)
    d.driver.registers.write("queue_address", 0)


WAYS = pytest.mark.parametrize("way", [by_status, by_taking_the_queue_away])


@WAYS
def test_legacy_reset_takes_until_the_host_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: object
) -> None:
    monkeypatch.setattr(transport_pci, "LEGACY_RESET_S", WAIT_S)
    with disk(str(image(tmp_path)), legacy=True) as d, stuck("pwritev") as host:
        send(d, host, ([header(OUT), bytes(SECTOR)], [1]))
        vcpu = threading.Thread(target=way, args=(d,))  # type: ignore[arg-type]
        vcpu.start()
        while not legacy(d).core.resetting:
            assert vcpu.is_alive()
        with legacy(d).lock:  # it waits without the lock
            host.release.set()
        vcpu.join(WAIT_S)
        assert not vcpu.is_alive()
        assert d.driver.status == 0


@WAYS
def test_legacy_reset_holds_its_vcpu_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, way: object
) -> None:
    monkeypatch.setattr(transport_pci, "LEGACY_RESET_S", 0.01)
    with disk(str(image(tmp_path)), legacy=True) as d, stuck("pwritev") as host, caplog.at_level(logging.WARNING):
        send(d, host, ([header(OUT), bytes(SECTOR)], [1]))
        way(d)  # type: ignore[operator]
        assert not host.release.is_set()
        d.driver.status = 1
        assert d.driver.status == LEGACY_RUNNING, "it stays in reset"
        assert "stuck in the host" in caplog.text
        finish(d, host)
        d.driver.start()
        assert d.request(IN, 0, room=SECTOR).data[-1] == 0


def test_memory_a_legacy_driver_uses_again_is_not_written_by_what_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_pci, "LEGACY_RESET_S", 0.0)
    with disk(str(image(tmp_path)), legacy=True) as d, stuck("preadv") as host:
        ((data, status),) = send(d, host, ([header(IN)], [SECTOR << 9, 1]))
        ask_for_reset(d.driver)
        for gpa, length in (data, status):
            d.machine.memory.write(gpa, b"\xee" * length)
        finish(d, host)
        d.machine.settle()
        assert all(d.machine.memory.read(gpa, length) == b"\xee" * length for gpa, length in (data, status))


def test_medium_gets_nothing_of_what_a_legacy_driver_puts_there_after_its_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_pci, "LEGACY_RESET_S", 0.0)
    path = image(tmp_path)
    with disk(str(path), legacy=True) as d, stuck("pwritev") as host:
        send(d, host, ([header(OUT, 5), b"d" * SECTOR], [1]))
        ask_for_reset(d.driver)
        whole = d.machine.memory.regions[0]
        d.machine.memory.write(1 << 20, b"\xee" * (whole.size - (1 << 20)))
        finish(d, host)
        assert path.read_bytes()[5 * SECTOR :][:SECTOR] == b"d" * SECTOR


def test_legacy_driver_reads_and_writes_more_than_one_buffer_of_ours(tmp_path: Path) -> None:
    path = image(tmp_path, 8192)
    with disk(str(path), legacy=True) as d:
        length = 3 << 20
        assert d.write(7, bytes(range(256)) * (length // 256)) == 0
        assert d.read(7, length // SECTOR) == bytes(range(256)) * (length // 256)
        assert path.read_bytes()[7 * SECTOR :][:length] == bytes(range(256)) * (length // 256)


# Pauses


def test_pause_that_the_host_does_not_allow_costs_the_driver_a_reset(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d, stuck("pwritev") as host:
        assert d.device._resources is not None
        d.device._resources = attrs.evolve(d.device._resources, pause_s=0.01)
        send(d, host, ([header(OUT), bytes(SECTOR)], [1]))
        pause(legacy(d))
        assert d.driver.status == RUNNING | 64
        assert ask_for_reset(d.driver) == RUNNING | 64
        finish(d, host)
        d.driver.start()
        assert d.request(IN, 0, room=SECTOR).data[-1] == 0


def test_pause_answers_what_is_in_flight(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d, stuck("pwritev") as host:
        send(d, host, *[([header(OUT, n), b"p" * SECTOR], [1]) for n in range(20)])
        host.release.set()
        pause(legacy(d))
        assert [c.data for c in d.queue.completed()] == [b"\0"] * 20
        resume(legacy(d))
        assert d.read(19) == b"p" * SECTOR
