"""A disk of four queues under fio, which checks what it reads by the checksums of what it wrote, in a stock guest whose
driver comes and goes in between. How long: FIO_S seconds, a round each ROUND_S.
"""

import os
from collections.abc import Iterator

import pytest

from acrn_dm.testing.guest.inner.shell import CONSOLE_SLOT, GuestShell
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import LAB
from tests.lab.stemmed import Stemmed

pytestmark = pytest.mark.lab

FIO_S = int(os.environ.get("FIO_S", "10"))
ROUND_S = 5
QUEUES = 4
MIB = 1 << 20
DISK = "/tmp/verified.img"
FIO = (
    f"fio --name=mix --filename=/dev/vda --rw=randrw --bsrange=512-64k --ioengine=libaio --direct=1 --iodepth=32 "
    f"--numjobs={QUEUES} --size=16m --offset_increment=16m --verify=crc32c --verify_fatal=1 --verify_backlog=64 "
    f"--time_based --runtime={ROUND_S} --group_reporting --thread --output-format=terse"
)


@pytest.fixture(scope="module")
def guest(lab: OuterVm, lab_kernel: Kernel) -> Iterator[GuestShell]:
    if not lab.alive():
        lab.restart()
    scratch = LAB / "verified"
    scratch.mkdir(parents=True, exist_ok=True)
    done = lab.run(["truncate", "-s", str(QUEUES * 16 * MIB), DISK])
    assert done.rc == 0, done.stderr
    disk = f"{CONSOLE_SLOT + 1},virtio-blk,iothread=2,mq={QUEUES},{DISK},writeback"
    argv = ["--cpus", str(QUEUES), "-m", "512M", "-s", disk]
    shell = GuestShell(Stemmed(lab), lab_kernel, scratch, argv, programs=["fio"])
    yield shell
    assert shell.power_off() == 0, shell.process.stderr


def test_what_is_read_is_what_was_written_while_the_driver_comes_and_goes(guest: GuestShell) -> None:
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
