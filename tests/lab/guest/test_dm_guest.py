"""A guest of ``dm_guest`` is a stock kernel with the device that was asked for, on a real KVM."""

from collections.abc import Iterator

import pytest

from acrn_dm.testing.guest import CommandFailed, Guest, Guests
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.outer.vm import OuterVm

TEXT = b"what the host has in this file. "


@pytest.fixture(scope="module")
def guest(lab: OuterVm) -> Iterator[Guest]:
    with Guests(place=lab) as guests:
        source = guests.scratch / "source"
        source.write_bytes(TEXT * 100_000)
        with guests(devices=[f"virtio-rng,source={source}"], append="quiet loglevel=4") as guest:
            yield guest


def test_shell_sees_the_stock_kernel_and_the_device(guest: Guest, lab_kernel: Kernel) -> None:
    assert guest.run("uname -r") == lab_kernel.version
    assert guest.run("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")


def test_python_reads_what_the_device_gives(guest: Guest) -> None:
    seen = guest.python("import struct\nprint(open('/dev/hwrng', 'rb').read(256).decode())")
    assert TEXT.decode() in seen


def test_failures_and_the_kernels_words_come_to_the_test(guest: Guest) -> None:
    with pytest.raises(CommandFailed, match="ZeroDivisionError"):
        guest.python("1 / 0")
    guest.run("echo '<1>hello from within' > /dev/kmsg")
    assert "hello from within" in guest.console()
    assert "needs a reset" not in guest.log()
