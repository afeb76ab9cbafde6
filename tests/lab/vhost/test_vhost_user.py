"""vhost-user in the lab: a stock guest whose disk and console are served by other processes of the outer VM."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.testing.guest.guests import environment
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.demo import places, vmm
from lab.demo.log import Log
from lab.demo.run import demonstrate
from lab.paths import ROOT, empty_scratch
from tests.lab.stemmed import PLAIN, Stemmed, in_stem, unpacked
from tests.lab.vhost.conftest import SECOND
from tests.lab.vhost.user_scene import CONSOLE, DISK, DISK_MIB, PORT, Backends, storage_daemon
from tests.lab.vhost.vhost_scene import Scene

pytestmark = pytest.mark.lab

FIGHT_S = 8
ENOUGH = 100  # answers, and rounds of the fight: a busy machine takes longer for them
DEMO_DISK = "/run/demo-disk.sock"
WRITE_MIB = 16
CONSOLE_MIB = 10
# Takes everything that the guest sends, says what it was, and sends it back.
MIRROR = """
import hashlib, socket, sys
path, size = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_UNIX) as port:
    port.connect(path)
    print("connected", flush=True)
    data = bytearray()
    while len(data) < size and (piece := port.recv(1 << 18)):
        data += piece
    print("digest", hashlib.sha256(data).hexdigest(), flush=True)
    port.sendall(data)
    port.recv(1)
"""


def digest_of(scene: Scene, skip_mib: int, mib: int) -> str:
    """Of a part of the disk, as the guest reads it from the device."""
    command = f"dd if=/dev/vda bs=1M skip={skip_mib} count={mib} iflag=direct 2> /dev/null | sha256sum"
    return scene.shell.run(command, 120).split()[0]


def test_everything_that_the_demonstration_shows_works_over_the_daemons_disk(
    lab: OuterVm, request: pytest.FixtureRequest
) -> None:
    log = Log()

    @contextmanager
    def served(disk: Path) -> Iterator[places.Place]:
        with in_stem(lab, log, disk, environment()) as (image, drive):
            daemon = storage_daemon(lab, image, DEMO_DISK)
            assert lab.run(f"until [ -S {DEMO_DISK} ]; do sleep 0.2; done", timeout=30).rc == 0
            yield image, drive
            daemon.signal(signal.SIGTERM)
            assert daemon.wait(20).rc == 0, daemon.stderr

    def command(machine: vmm.Machine) -> list[str]:
        return [sys.executable, "-m", "acrn_dm", *vmm.command("acrn-dm", unpacked(machine))[1:]]

    scratch = empty_scratch("vhost-user", request.node.name)
    demonstrate(log, scratch, served, command, medium=f"vhost-user={DEMO_DISK}")
    assert log.failures() == {}


def test_guest_reads_the_daemons_disk(scene: Scene, backends: Backends) -> None:
    assert scene.shell.run("cat /sys/block/vda/size") == str(DISK_MIB * 2048)
    assert digest_of(scene, 0, DISK_MIB) == backends.image_digest(0, DISK_MIB)


def test_what_the_guest_flushed_is_in_the_image_though_the_daemon_was_killed_meanwhile(
    scene: Scene, backends: Backends
) -> None:
    write = f"dd if=/dev/urandom of=/dev/vda bs=1M count={WRITE_MIB} seek={WRITE_MIB} conv=notrunc,fsync 2> /tmp/dd"
    scene.shell.run(f"({write}; echo $? > /tmp/done) &")
    scene.shell.run("until [ $(awk '{ print $7 }' /sys/block/vda/stat) -gt 0 ]; do usleep 1000; done")
    backends.replace_daemon()
    assert scene.shell.run("until [ -e /tmp/done ]; do usleep 50000; done; cat /tmp/done", 120) == "0"
    assert digest_of(scene, WRITE_MIB, WRITE_MIB) == backends.image_digest(WRITE_MIB, WRITE_MIB)


def test_10_mb_each_way_over_our_console_backend(scene: Scene) -> None:
    size = CONSOLE_MIB << 20
    mirror = scene.vm.spawn([*PLAIN, MIRROR, PORT, str(size)])
    mirror.wait_for("connected")
    scene.shell.run("until bulk=$(port_named bulk); do usleep 50000; done")
    digest = scene.shell.run(f"head -c {size} /dev/urandom > /tmp/data; sha256sum < /tmp/data", 120).split()[0]
    scene.shell.run("exec 4<> $bulk; cat /tmp/data >&4", 200)
    assert mirror.wait_for("digest").split()[-1] == digest
    assert scene.shell.run(f"head -c {size} <&4 | sha256sum", 200).split()[0] == digest
    scene.shell.run("exec 4<&-")
    mirror.signal(signal.SIGTERM)


def test_second_port_answers_within_a_second_while_a_peer_fights_over_its_kicks(
    scene: Scene, backends: Backends
) -> None:
    """The disk's, whose requests are relayed, and the console's; both have work meanwhile."""
    scene.shell.run("until second=$(port_named second) && bulk=$(port_named bulk); do usleep 50000; done")
    repeat = "while :; do if read -r line <&5; then echo $line >&5; else usleep 20000; fi; done"
    scene.shell.run(f"(exec 5<> $second; {repeat}) > /dev/null 2>&1 &")
    reader = scene.vm.spawn([*PLAIN, MIRROR, PORT, str(1 << 40)])
    reader.wait_for("connected")
    on = "while [ ! -e /tmp/stop ]; do"
    for _ in range(4):
        scene.shell.run(f"({on} dd if=/dev/vda of=/dev/null bs=4k count=1000 iflag=direct; done) > /dev/null 2>&1 &")
    # Opened once: the driver spins until the device has taken each control message.
    scene.shell.run(f"(exec 6> $bulk; {on} echo text >&6; usleep 10000; done) > /dev/null 2>&1 &")
    words = [str(scene.sample().pid), DISK, CONSOLE]
    program = [sys.executable, "-m", "tests.lab.vhost.fighting_peer", SECOND, str(FIGHT_S), str(ENOUGH), *words]
    done = Stemmed(scene.vm).spawn(program, cwd=ROOT).wait(120)
    assert done.rc == 0, done.stderr
    result = json.loads(done.stdout)
    print(result)
    assert result["kicks"] >= 3, "the disk's relay and the console's port and control queues"
    assert min(result["rounds"], result["answers"]) >= ENOUGH
    assert result["slowest"] < 1.0 + 2 * result["calm"]
    scene.shell.run("touch /tmp/stop")
    backends.replace_daemon()  # which has lost kicks in the fight
    reader.signal(signal.SIGTERM)
    assert digest_of(scene, 0, DISK_MIB) == backends.image_digest(0, DISK_MIB)
    assert "helper threads" not in scene.shell.process.stderr
