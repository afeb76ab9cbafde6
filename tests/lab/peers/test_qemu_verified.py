"""A disk of four queues under fio, which checks what it reads by the checksums of what it wrote, in a stock guest of
QEMU's whose driver comes and goes in between. How long: FIO_S seconds, a round each ROUND_S. With
``QEMU=newer`` it is a newer one.
"""

import os
from collections.abc import Iterator

import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from lab.qemu.guest import QemuGuest, at
from tests.lab.peers.exports import export, started

pytestmark = pytest.mark.lab

FIO_S = int(os.environ.get("FIO_S", "10"))
ROUND_S = 5
QUEUES = 4
MEMORY = "768M"  # fio and its libraries are in it
MIB = 1 << 20
# fio begins anew when it has been everywhere, and then writes where it still has blocks to check. What a read finds
# that overtakes half of a write, nobody promises (a file in the page cache neither), so one waits for the other.
FIO = (
    f"fio --name=mix --filename=/dev/vda --rw=randrw --bsrange=512-64k --ioengine=libaio --direct=1 --iodepth=32 "
    f"--numjobs={QUEUES} --size=16m --offset_increment=16m --verify=crc32c --verify_fatal=1 --verify_backlog=64 "
    f"--serialize_overlap=1 --time_based --runtime={ROUND_S} --group_reporting --thread --output-format=terse"
)


@pytest.fixture(scope="module")
def guest(lab_kernel: Kernel, either_qemu: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[QemuGuest]:
    folder = tmp_path_factory.mktemp("verified")
    with (folder / "image").open("wb") as image:
        image.truncate(QUEUES * 16 * MIB)
    disk = export(folder, "disk", f"virtio-blk,iothread=2,mq={QUEUES},{folder / 'image'},writeback")
    words = [
        *at("disk", folder, again=True, newer=bool(either_qemu)),
        "-device",
        f"vhost-user-blk-pci,num-queues={QUEUES},chardev=disk",
    ]
    with started([disk]):
        guest = QemuGuest.boot(
            lab_kernel, folder, words, cpus=QUEUES, memory=MEMORY, programs=["fio"], qemu=either_qemu
        )
        try:
            yield guest
        finally:
            guest.end()


def test_what_is_read_is_what_was_written_while_the_driver_comes_and_goes(guest: QemuGuest) -> None:
    assert int(guest.run("ls /sys/block/vda/mq | wc -l")) == QUEUES
    device = guest.run("basename $(readlink /sys/block/vda/device)").strip()
    for _ in range(max(2, FIO_S // ROUND_S)):
        report = guest.run(f"{FIO} || echo failed $?", ROUND_S + 60).split(";")
        assert int(report[4]) == 0, report  # terse format, version 3: the error
        assert int(report[5]) > 0, "bytes were read"
        assert int(report[46]) > 0, "bytes were written"
        guest.run(
            f"cd /sys/bus/virtio/drivers/virtio_blk && echo {device} > unbind && ! test -b /dev/vda && "
            f"echo {device} > bind && until test -b /dev/vda; do usleep 10000; done"
        )
    assert "I/O error" not in guest.run("dmesg")
