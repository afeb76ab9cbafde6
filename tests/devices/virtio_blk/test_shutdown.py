"""A machine that goes off while the host has not finished what is in flight: bounded, and nothing is torn away."""

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_blk.engine import last_flush
from acrn_dm.devices.virtio_blk.engine.pieces import PIECE_BYTES
from acrn_dm.machine import machine as machine_module
from acrn_dm.machine.machine import StopReason
from acrn_dm.ring.layout import DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.devices.virtio_blk.blk_rig import OUT, Disk, disk, header, image
from tests.devices.virtio_blk.stuck import WAIT_S, Stuck, stuck

SECTOR = 512
RUNNING = 15
MIB = 1 << 20


def write_stuck(d: Disk, host: Stuck) -> None:
    d.queue.send([header(OUT), bytes(SECTOR)], [1])
    d.queue.kick()
    d.machine.io_loops["io"].step()
    assert host.entered.wait(WAIT_S)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "STOP_S", 0.01)


@pytest.mark.usefixtures("impatient")
def test_machine_goes_off_and_leaves_a_stuck_write_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with stuck("pwritev") as host, disk(str(image(tmp_path))) as d:
        write_stuck(d, host)
        memory = d.machine.memory
        d.machine.machine.power.request(StopReason.FORCED)
        d.machine.machine._stop()
        d.machine.machine.close()
        assert not host.release.is_set()
        assert "left behind, with the guest's memory" in caplog.text
        assert memory.read(0, 4) == bytes(4), "it stays mapped"
        assert d.device.busy


@pytest.mark.usefixtures("impatient")
def test_what_was_left_behind_ends_quietly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with stuck("pwritev") as host, disk(str(image(tmp_path))) as d:
        write_stuck(d, host)
        pools = tuple(d.device._pools.values())
        threads = [thread for pool in pools for thread in pool._threads]
        d.machine.machine.close()
        caplog.clear()
        host.release.set()
        for thread in threads:
            thread.join(WAIT_S)
        assert not d.device.busy
        assert caplog.records == []


def test_close_waits_for_what_the_host_finishes_in_time(tmp_path: Path) -> None:
    with stuck("pwritev") as host, disk(str(image(tmp_path))) as d:
        write_stuck(d, host)
        d.machine.main_loop.call_soon(host.release.set)  # the machine's loop goes on while it waits
        memory = d.machine.memory
        d.machine.machine.close()
        assert memory.regions == (), "the memory was given back"


def give_huge_reads(d: Disk, count: int, segments: int) -> int:
    """*count* reads of *segments* times 8 MiB each, all into the same memory; returns their bytes."""
    ring, memory = d.queue.ring, d.machine.memory
    data, extra = 8 * MIB, d.machine.heap.take(64 * count)
    for i in range(count):
        memory.write(extra + 64 * i, header(0))
    table = d.machine.heap.take(16 * (segments + 2) * count)
    for i in range(count):
        at = table + 16 * (segments + 2) * i
        rows = [(extra + 64 * i, 16, DESC_F_NEXT)]
        rows += [(data, 8 * MIB, DESC_F_NEXT | DESC_F_WRITE)] * segments
        rows += [(extra + 64 * i + 32, 1, DESC_F_WRITE)]
        body = b"".join(
            gpa.to_bytes(8, "little")
            + length.to_bytes(4, "little")
            + flags.to_bytes(2, "little")
            + (n + 1).to_bytes(2, "little")
            for n, (gpa, length, flags) in enumerate(rows)
        )
        memory.write(at, body)
        ring.write_desc(i, at, len(body), 4)  # indirect
        ring.make_available(i)
    ring.publish()
    return count * segments * 8 * MIB


def test_huge_reads_end_at_their_next_piece(tmp_path: Path) -> None:
    """24 reads of almost 2 GiB of a file that is all hole took half a minute to be finished with."""
    path = tmp_path / "sparse.img"
    with path.open("wb") as file:
        file.truncate(2 << 30)
    with stuck("preadv") as host, disk(str(path), memory=16 * MIB) as d:
        asked = give_huge_reads(d, 24, 250)
        d.queue.kick(force=True)
        d.machine.io_loops["io"].step()
        assert host.entered.wait(WAIT_S)
        d.machine.main_loop.call_soon(host.release.set)
        d.machine.machine.close()
        assert host.bytes <= 8 * PIECE_BYTES < asked


def test_reboot_waits_for_the_host(tmp_path: Path) -> None:
    with stuck("pwritev") as host, disk(str(image(tmp_path))) as d:
        write_stuck(d, host)
        d.machine.main_loop.call_soon(host.release.set)
        d.machine.reset()
        assert host.release.is_set()
        driver = d.machine.driver(3)
        assert driver.status == 0
        driver.start()


def test_machine_whose_reboot_waits_for_the_host_can_be_stopped(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d, stuck("pwritev") as host:
        write_stuck(d, host)
        d.machine.main_loop.call_soon(lambda: d.machine.machine.power.request(StopReason.FORCED))
        d.machine.machine.reset()
        assert d.machine.machine.power.reason is StopReason.FORCED
        function = d.machine.bus.functions[0]
        assert isinstance(function, VirtioPci)
        assert (host.release.is_set(), function.core.status, d.machine.machine.power.reboots) == (False, RUNNING, 0)


def test_wait_for_the_host_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("acrn_dm.pci.quiesce.TELL_S", 0.0)
    with stuck("pwritev") as host, disk(str(image(tmp_path))) as d, caplog.at_level(logging.WARNING):
        write_stuck(d, host)
        d.machine.main_loop.call_soon(host.release.set)
        d.machine.reset()
    assert [m for m in caplog.messages if "in flight" in m] == [
        "waiting for what the host has in flight: virtio-blk-3:0"
    ]


def test_last_flush_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(last_flush, "FLUSH_S", 0.01)
    host = Stuck()

    def fdatasync(fd: int) -> None:
        assert host.release.wait(WAIT_S)

    with disk(f"{image(tmp_path)},writeback") as d:
        d.write(0, bytes(SECTOR))
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        d.device.prepare_close()
        flush = d.device._flush
        d.machine.machine.close()
        assert "is stuck in the host" in caplog.text
        host.release.set()
        assert flush is not None
        flush.thread.join(WAIT_S)


PROGRAM = """
    import os, sys, threading
    from pathlib import Path
    from acrn_dm.machine import machine
    from tests.devices.virtio_blk.blk_rig import OUT, disk, header, image

    machine.STOP_S = 0.1
    silent, _ = os.pipe()  # whose other end never says anything
    entered = threading.Event()

    def pwritev(*_):
        entered.set()
        os.read(silent, 1)

    with disk(str(image(Path(sys.argv[1])))) as d:
        os.pwritev = pwritev
        d.queue.send([header(OUT), bytes(512)], [1])
        d.queue.kick()
        d.machine.io_loops["io"].step()
        assert entered.wait(30)
    sys.exit(7)
"""


def test_process_ends_with_its_exit_status_although_a_thread_is_in_the_kernel(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], timeout=60, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
    assert "left behind" in done.stderr
