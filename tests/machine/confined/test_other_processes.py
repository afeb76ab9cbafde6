"""The other ends of a strict machine's devices die and come back: foreign processes, ours, and those it starts."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends.user.user_rig import Daemon, storage_daemon
from tests.base.sandbox.sandbox_rig import needs_all, needs_first
from tests.machine.confined.confined_rig import FIRST_SLOT as SLOT
from tests.machine.confined.confined_rig import SECTOR, calling, confined, export, is_confined

pytestmark = needs_all

MIB = 1 << 20
RELAYED = "type(made.bus.functions[0].data_plane.backend._way._relay._queues[0]).__name__"  # what passes requests on


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    return path


def of_qemu(folder: Path, image: Path) -> Daemon:
    if shutil.which("qemu-storage-daemon") is None:
        pytest.skip("needs qemu-storage-daemon (Debian package qemu-system-common)")
    return storage_daemon(folder, image)


def of_ours(folder: Path, image: Path) -> Daemon:
    return export(folder, "vhost-user", f"virtio-blk,{image}")


@pytest.mark.parametrize(("kind", "options"), [(of_qemu, ""), (of_qemu, ",relay=on"), (of_ours, "")])
def test_disk_s_back_end_comes_back_and_finishes_what_the_last_one_owed(
    tmp_path: Path, image: Path, kind: Callable[[Path, Path], Daemon], options: str
) -> None:
    daemon = kind(tmp_path, image)
    daemon.start()
    try:
        with confined(tmp_path, f"virtio-blk,vhost-user={daemon.socket}{options}") as machine:
            for round_ in range(1, 3):
                assert machine.ask(f"disks[{SLOT}].do({round_}, {round_})") == round_
                if options:
                    assert machine.ask(RELAYED) == "NativeRelayQueue"
                assert daemon.process is not None
                daemon.process.send_signal(signal.SIGSTOP)
                owed = [machine.ask(f"disks[{SLOT}].send({sector}, {sector})") for sector in (10 + round_, 20 + round_)]
                daemon.kill()
                machine.ask("made.settle()")
                daemon.start()
                machine.ask(f"disks[{SLOT}].have(*{owed})")
                assert machine.ask(f"disks[{SLOT}].do({20 + round_})") == 20 + round_
            assert machine.ask("made.failures") == []
    finally:
        daemon.kill()
    written = image.read_bytes()
    assert [written[n * SECTOR] for n in range(24)] == [n if n % 10 in (1, 2) else 0 for n in range(24)]


def test_disk_s_back_end_that_connects_to_us_is_followed_by_the_next(tmp_path: Path, image: Path) -> None:
    daemon = calling(tmp_path, "vhost-user", f"virtio-blk,{image}")
    daemon.start(wait=False)
    try:
        with confined(tmp_path, f"virtio-blk,vhost-user={tmp_path / 's'},server=on") as machine:
            for round_ in range(1, 3):
                assert machine.ask(f"disks[{SLOT}].do({round_}, {round_})") == round_
                daemon.kill()
                owed = machine.ask(f"disks[{SLOT}].send(10, {round_})")
                daemon.start(wait=False)
                machine.ask(f"disks[{SLOT}].have({owed})")
            assert machine.ask("made.failures") == []
    finally:
        daemon.kill()
    assert image.read_bytes()[10 * SECTOR] == 2


@pytest.mark.parametrize("role", ["", ",server=on"])
def test_function_s_next_process_is_there_for_the_next_boot(tmp_path: Path, role: str) -> None:
    daemon = (calling if role else export)(tmp_path, "vfio-user", "edu")
    daemon.start(wait=not role)
    try:
        with confined(tmp_path, f"vfio-user,socket={tmp_path / 's'}{role}") as machine:
            assert machine.ask(f"edu({SLOT})")
            for _ in range(2):
                daemon.kill()
                machine.ask("until(lambda: made.failures)")
                assert "the connection was closed" in machine.ask("str(made.failures.pop()[1])")
                machine.ask("made.reset()")  # nobody is there: the guest has no function
                daemon.start(wait=not role)
                machine.ask(f"until(lambda: boots_with({SLOT}))")
                assert machine.ask(f"edu({SLOT})")
            assert machine.ask("made.failures") == []
    finally:
        daemon.kill()


def test_disk_by_vfio_user_is_there_again_for_the_next_boot(tmp_path: Path, image: Path) -> None:
    daemon = export(tmp_path, "vfio-user", f"virtio-blk,{image}")
    daemon.start()
    try:
        with confined(tmp_path, f"vfio-user,socket={tmp_path / 's'}") as machine:
            assert machine.ask(f"disks[{SLOT}].do(1, 1)") == 1
            daemon.kill()
            daemon.start()
            machine.ask("until(lambda: made.failures)")
            machine.ask("made.failures.clear()")
            machine.ask(f"disks.pop({SLOT}) and made.reset()")
            assert machine.ask(f"disks[{SLOT}].do(1)") == 1
            assert machine.ask(f"disks[{SLOT}].do(2, 2)") == 2
            assert machine.ask("made.failures") == []
    finally:
        daemon.kill()


def test_process_of_a_device_is_killed_and_the_next_in_a_sandbox_of_its_own_does_what_it_owed(
    tmp_path: Path, image: Path
) -> None:
    with confined(tmp_path, f"virtio-blk,{image},process=on,sandbox=strict") as machine:
        pids = [machine.ask(f"present({SLOT})")]
        for round_ in range(1, 3):
            assert machine.ask(f"disks[{SLOT}].do({round_}, {round_})") == round_
            os.kill(pids[-1], signal.SIGSTOP)
            owed = [machine.ask(f"disks[{SLOT}].send({sector}, {sector})") for sector in (10 + round_, 20 + round_)]
            assert not set(owed) & set(machine.ask(f"disks[{SLOT}].answers()"))
            os.kill(pids[-1], signal.SIGKILL)
            machine.ask(f"disks[{SLOT}].have(*{owed})")
            pids.append(machine.ask(f"present({SLOT})"))
            assert is_confined(pids[-1])
        assert len({*pids, 0}) == 4
        assert machine.ask("made.failures") == []
    written = image.read_bytes()
    assert [written[n * SECTOR] for n in range(24)] == [n if n % 10 in (1, 2) else 0 for n in range(24)]


def test_machine_goes_on_without_its_broker_and_ends_well(tmp_path: Path, image: Path) -> None:
    """Its devices have no next process then, and their drivers are told."""
    with confined(tmp_path, f"virtio-blk,{image},process=on,sandbox=strict", "virtio-blk,nodisk") as machine:
        assert machine.ask(f"disks[{SLOT}].do(1, 1)") == 1
        os.kill(machine.broker, signal.SIGKILL)
        assert machine.ask(f"disks[{SLOT}].do(1)") == 1
        os.kill(machine.ask(f"present({SLOT})"), signal.SIGKILL)
        machine.ask("until(lambda: made.failures)")
        assert machine.ask("str(made.failures.pop()[1])").endswith("the broker has ended")
        machine.ask(f"made.driver({SLOT + 1}).start()")
        assert machine.ask("made.failures") == []
    assert "Traceback" not in machine.log.read_text()


def test_machine_goes_on_without_its_broker_where_back_ends_are_others_processes(tmp_path: Path, image: Path) -> None:
    daemon = of_ours(tmp_path, image)
    daemon.start()
    try:
        with confined(tmp_path, f"virtio-blk,vhost-user={daemon.socket}") as machine:
            assert machine.ask(f"disks[{SLOT}].do(1, 1)") == 1
            os.kill(machine.broker, signal.SIGKILL)
            daemon.kill()
            machine.ask("until(lambda: made.failures)")
            assert machine.ask("str(made.failures.pop()[1])").endswith("the broker has ended")
    finally:
        daemon.kill()
    assert "Traceback" not in machine.log.read_text()


@needs_first
def test_thread_that_looks_at_rings_comes_first_as_without_a_sandbox(tmp_path: Path, image: Path) -> None:
    """That of a disk whose back-end takes no notes."""
    daemon = of_qemu(tmp_path, image)
    daemon.start()
    try:
        with confined(tmp_path, f"virtio-blk,vhost-user={daemon.socket}") as machine:
            for _ in range(2):
                assert machine.ask(f"disks[{SLOT}].do(1, 1)") == 1
                watch = machine.ask("next(t.native_id for t in threading.enumerate() if t.name == 'watch')")
                assert os.sched_getscheduler(watch) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
                machine.ask(f"disks[{SLOT}].driver.start()")
    finally:
        daemon.kill()
