"""Devices that other programs are, in a stock guest: a folder by Debian's virtiofsd, and entropy by ours."""

import pytest

from tests.lab.vhost.fs_scene import SHARED, TAG
from tests.lab.vhost.vhost_scene import Scene

pytestmark = pytest.mark.lab

MIB = 8
AT = "/tmp/shared"


@pytest.fixture(scope="module")
def mounted(scene: Scene) -> str:
    """Where the guest has the folder."""
    scene.shell.run(f"mkdir -p {AT} && mount -t virtiofs {TAG} {AT}")
    return AT


def digest(scene: Scene, name: str) -> str:
    """Of a file in the folder, as the outer VM has it."""
    return scene.vm.run(f"sha256sum {SHARED}/{name}").stdout.split()[0]


def test_guest_reads_what_the_host_has_written(scene: Scene, mounted: str) -> None:
    made = scene.vm.run(f"dd if=/dev/urandom of={SHARED}/down bs=1M count={MIB}")
    assert made.rc == 0, made.stderr
    assert scene.shell.run(f"sha256sum {mounted}/down", 120).split()[0] == digest(scene, "down")


def test_host_has_what_the_guest_writes_renames_and_removes(scene: Scene, mounted: str) -> None:
    run = scene.shell.run
    run(f"mkdir {mounted}/folder && head -c {MIB << 20} /dev/urandom > /tmp/up", 120)
    run(f"cp /tmp/up {mounted}/folder/new && sync && mv {mounted}/folder/new {mounted}/folder/up", 120)
    assert run("sha256sum /tmp/up").split()[0] == digest(scene, "folder/up")
    run(f"echo more >> {mounted}/folder/up && chmod 600 {mounted}/folder/up")
    assert scene.vm.run(f"stat -c '%a %s' {SHARED}/folder/up").stdout.split() == ["600", str((MIB << 20) + 5)]
    run(f"rm -r {mounted}/folder")
    assert scene.vm.run(f"ls {SHARED}").stdout.split() == ["down"]


def test_guest_has_entropy_of_a_device_that_it_is_not_told_who_serves(scene: Scene) -> None:
    assert "virtio_rng" in scene.shell.run("cat /sys/class/misc/hw_random/rng_available")
    assert scene.shell.run("head -c 256 /dev/hwrng | wc -c", 60).strip() == "256"
