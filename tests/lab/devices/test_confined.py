"""Devices in processes of their own under the drivers of a stock kernel, each in a strict sandbox in which it does all
of its work, as the machine's process is; what one of them tries besides; and a process that ends. Other kinds are seen
in their sandboxes in ``tests.lab.peers``.
"""

import pytest

from tests.lab.devices.confined_scene import DEVICES, GUEST, HOST, IMAGE, IMAGE_MIB, ORDERS, STARTED
from tests.lab.devices.packages_scene import IMAGE as ANOTHERS
from tests.lab.devices.packages_scene import PATIENCE_S, Scene, eventually
from tests.lab.processes import Seen, processes

pytestmark = pytest.mark.lab

PART_MIB = 2
HALVES = (0, IMAGE_MIB // 2)
# What becomes of each order in a strict sandbox; of the last one nobody is told.
STOPPED = {
    f"read {ANOTHERS}": "EACCES",
    f"write {ANOTHERS}": "EPERM",
    "connect /run/none": "EPERM",
    "fork": "EPERM",
    "kill": "EPERM",
}
FLAGRANT = "execute /bin/sleep"


def place(scene: Scene, name: str) -> str:
    return f"/sys/bus/pci/devices/0000:00:{scene.slot(DEVICES[name]):02x}.0"


def process(scene: Scene, name: str) -> Seen:
    """The device's."""
    kind = DEVICES[name].partition(",")[0]
    started = dict(line.split() for line in STARTED.read_text().splitlines())  # the last one of each
    return processes(scene.vm)[int(started[f"{kind}-{scene.slot(DEVICES[name])}:0"])]


def node(scene: Scene, name: str, pattern: str) -> str:
    """The name of what the guest's driver has made of a device."""
    return (
        scene.run(f"until ls -d {place(scene, name)}/virtio*/{pattern}; do usleep 10000; done").split("/")[-1].strip()
    )


def written(scene: Scene, at: int) -> None:
    """The guest writes noise to the disk, *at* MiB; it is there, for the guest and in the file."""
    disk = node(scene, "disk", "block/*")
    noise = f"dd if=/dev/urandom of=/tmp/noise bs=1M count={PART_MIB} 2> /dev/null"
    copied = f"dd if=/tmp/noise of=/dev/{disk} bs=1M seek={at} oflag=direct conv=fsync 2> /dev/null"
    digest = scene.run(f"{noise} && {copied} && sha256sum < /tmp/noise; rm /tmp/noise", timeout=PATIENCE_S).split()[0]
    read = f"dd if=/dev/{disk} bs=1M skip={at} count={PART_MIB} iflag=direct 2> /dev/null | sha256sum"
    assert scene.run(read).split()[0] == digest
    kept = f"dd if={IMAGE} bs=1M skip={at} count={PART_MIB} 2> /dev/null | sha256sum"
    assert scene.outside("sh", "-c", kept).split()[0] == digest


def choose(scene: Scene, name: str) -> None:
    """Have the guest's entropy come from that device; virtio_rng numbers them as it finds them."""
    sources = [text for text in scene.devices if text.startswith(("virtio-rng", "virtio-rnd", "greedy"))]
    number = sources.index(DEVICES[name]) if name in DEVICES else 0
    scene.run(f"echo virtio_rng.{number} > /sys/class/misc/hw_random/rng_current")


def test_each_of_them_has_a_process_with_a_filter_without_capabilities_and_in_namespaces_of_its_own(
    scene: Scene,
) -> None:
    found = {name: process(scene, name) for name in DEVICES}
    assert [name for name, seen in found.items() if not seen.confined] == []
    hosts = processes(scene.vm)[1].namespaces
    every = [namespace for seen in found.values() for namespace in (*seen.namespaces, str(seen.pid))]
    assert len({*hosts, *every}) == len(hosts) + len(every)


def test_machine_is_in_a_sandbox_too_and_its_broker_has_started_them(scene: Scene) -> None:
    found = processes(scene.vm)
    (broker,) = {int(process(scene, name).status["PPid"]) for name in DEVICES}
    assert not found[broker].confined
    assert found[int(found[broker].status["PPid"])].confined


def test_disk_is_written_and_read(scene: Scene) -> None:
    written(scene, HALVES[0])


def test_frames_come_and_go(scene: Scene) -> None:
    card = node(scene, "card", "net/*")
    scene.run(f"ip link set {card} up && ip address add {GUEST}/30 dev {card}")
    assert "3 packets received" in scene.run(f"ping -c 3 -W 5 {HOST}")


def test_what_a_device_tries_besides_is_refused_and_what_is_flagrant_ends_it(scene: Scene) -> None:
    """The guest reads from the device what came of it. The next process answers what the last one was asked."""
    before = process(scene, "greedy").pid
    choose(scene, "greedy")
    try:
        ORDERS.write_text("\n".join(STOPPED))
        read = "dd if=/dev/hwrng bs=64 count=2 2> /dev/null"  # what one answer says may begin in the middle of one
        scene.run(f"until {read} | grep -q '{' '.join(STOPPED.values())} '; do usleep 10000; done")
        ORDERS.write_text(FLAGRANT)
        scene.run(f"({read}) > /dev/null & true")
        ended = f"process {before} was ended by SIGSYS: it called what its sandbox forbids"
        eventually(lambda: ended in scene.guest.log(), scene.guest.log)
        ORDERS.write_text(f"read {ANOTHERS}")
        scene.run(f"until {read} | grep -q 'EACCES  '; do usleep 10000; done", timeout=2 * PATIENCE_S)
    finally:
        choose(scene, "first")
    assert process(scene, "greedy").pid != before


def test_guest_goes_on_with_the_next_process_of_its_disk(scene: Scene) -> None:
    before = process(scene, "disk").pid
    scene.outside("kill", "-9", str(before))
    written(scene, HALVES[1])
    present = process(scene, "disk")
    assert present.pid != before
    assert present.confined
