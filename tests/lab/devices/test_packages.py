"""Packages in ``plugins/`` that need acrn-dm's own machine, under the drivers of a stock kernel: one guest of
``dm_guest`` that has them all. What needs a driver alone is in ``tests.lab.peers``.

acrn-dm runs in the outer VM, and so do those who send its devices lines, and other processes that are PCI functions by
vfio-user: a card, and a disk.
"""

import struct

import pytest

from acrn_dm.testing.guest import CommandFailed
from acrn_dm.testing.guest.kernels.debian import Kernel
from tests.lab.devices.packages_scene import (
    BALLOON,
    CARD,
    DISK,
    FILE,
    IMAGE,
    MIB,
    PATIENCE_S,
    SOURCE,
    Scene,
    eventually,
)

pytestmark = pytest.mark.lab


def test_balloon_takes_memory_from_the_guest_and_gives_it_to_the_host(scene: Scene) -> None:
    def total() -> int:
        return int(scene.run("grep MemTotal /proc/meminfo").split()[1]) << 10

    def counts() -> dict[str, int]:
        pairs = (word.split("=") for word in scene.say(BALLOON, "info")[0].split())
        return {name: int(value) for name, value in pairs}

    scene.run("mkdir -p /mnt && mount -t tmpfs none /mnt && dd if=/dev/zero of=/mnt/fill bs=1M count=160 2> /dev/null")
    before, resident = total(), scene.resident()
    assert resident > 160 * MIB
    scene.run("umount /mnt")
    assert scene.say(BALLOON, "size 128M") == ["ok"]
    eventually(lambda: counts()["actual"] == 128 * MIB, counts)
    assert before - total() == 128 * MIB
    assert counts()["given_back"] >= 128 * MIB
    eventually(lambda: counts()["reported"] > 0, counts)
    assert scene.resident() < resident - 100 * MIB
    eventually(lambda: "available=" in scene.say(BALLOON, "stats")[0], lambda: scene.say(BALLOON, "stats"))
    scene.say(BALLOON, "size 0")
    eventually(lambda: total() == before, counts)
    assert scene.run("dd if=/dev/zero of=/tmp/again bs=1M count=150 2> /dev/null; echo $?; rm /tmp/again") == "0"


def test_card_of_another_process_computes_moves_and_interrupts(scene: Scene) -> None:
    place = f"/sys/bus/pci/devices/0000:00:{scene.slot(f'vfio-user,socket={CARD}'):02x}.0"
    base = int(scene.run(f"head -n 1 {place}/resource").split()[0], 16)

    def read(offset: int) -> int:
        return int(scene.run(f"devmem {base + offset:#x} 32"), 16)

    def write(offset: int, value: int) -> None:
        scene.run(f"devmem {base + offset:#x} 32 {value:#x}")

    assert read(0x00) == 0x010000ED
    write(0x04, 0x1234)
    assert read(0x04) == 0xFFFFEDCB
    write(0x08, 10)
    eventually(lambda: not read(0x20) & 1, lambda: read(0x20))
    assert read(0x08) == 3628800
    anchor, spare = 0xF_0000, 0xD_0000  # the MP table's anchor, and a page of the legacy hole that nobody uses
    for source, target, command in ((anchor, 0x4_0000, 1), (0x4_0000, spare, 3)):
        for offset, value in ((0x80, source), (0x88, target), (0x90, 24), (0x98, command)):
            write(offset, value)
        eventually(lambda: not read(0x98) & 1, lambda: read(0x98))
    first = scene.run(f"devmem {anchor:#x} 32")
    assert struct.pack("<I", int(first, 16)) == b"_MP_"
    assert scene.run(f"devmem {spare:#x} 32") == first
    scene.run(f"[ -d {place}/uio ] || echo 1234 11e8 > /sys/bus/pci/drivers/uio_pci_generic/new_id")
    uio = scene.run(f"until [ -d {place}/uio ]; do usleep 10000; done; ls {place}/uio").strip()
    scene.run(
        f"rm -f /tmp/count; dd if=/dev/{uio} of=/tmp/count bs=4 count=1 2> /dev/null & "
        f"until ls -l /proc/$!/fd | grep -q {uio}; do usleep 10000; done"
    )
    write(0x60, 0x40)
    assert scene.run("until [ -s /tmp/count ]; do usleep 10000; done; xxd -p /tmp/count") == "01000000"
    assert read(0x24) == 0x40
    write(0x64, 0x40)
    assert read(0x24) == 0


def test_what_the_guest_writes_to_persistent_memory_is_in_the_file(scene: Scene) -> None:
    scene.run("until [ -b /dev/pmem0 ]; do usleep 10000; done", timeout=PATIENCE_S)
    assert scene.run("cat /sys/block/pmem0/size") == str(32 * MIB // 512)
    scene.run("printf 'written by the guest' | dd of=/dev/pmem0 bs=4k seek=8191 conv=fsync 2> /dev/null")
    assert "written by the guest" in scene.outside("tail", "-c", "4096", FILE)


def test_disk_of_another_process_is_read_and_written_by_msi_x(scene: Scene) -> None:
    place = f"/sys/bus/pci/devices/0000:00:{scene.slot(f'vfio-user,socket={DISK}'):02x}.0"
    disk = scene.run(f"until ls -d {place}/virtio*/block/*; do usleep 10000; done").split("/")[-1].strip()
    assert scene.run(f"head -c 18 /dev/{disk}") == "of another process"
    scene.run(f"printf 'from the guest' | dd of=/dev/{disk} bs=512 seek=100 conv=fsync 2> /dev/null")
    assert "from the guest" in scene.outside("dd", f"if={IMAGE}", "bs=512", "skip=100", "count=1")
    assert scene.run(f"ls {place}/msi_irqs").split()


def test_shell_sees_the_stock_kernel_and_the_device(scene: Scene, lab_kernel: Kernel) -> None:
    assert scene.guest.run("uname -r") == lab_kernel.version
    assert scene.guest.run("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")


def test_python_reads_what_the_device_gives(scene: Scene) -> None:
    seen = scene.guest.python("import struct\nprint(open('/dev/hwrng', 'rb').read(256).decode())")
    assert SOURCE.decode() in seen


def test_failures_and_the_kernels_words_come_to_the_test(scene: Scene) -> None:
    with pytest.raises(CommandFailed, match="ZeroDivisionError"):
        scene.guest.python("1 / 0")
    scene.guest.run("echo '<1>hello from within' > /dev/kmsg")
    assert "hello from within" in scene.guest.console()
    assert "needs a reset" not in scene.guest.log()
