"""``dm_guest`` with devices that are served: a stock kernel under QEMU, and packages in ``plugins/`` that it drives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.testing.guest import CommandFailed, Guest, Guests, HarnessError
from acrn_dm.testing.guest.kernels.debian import Kernel

pytestmark = pytest.mark.lab

SOURCE = b"what the host has in this file. "
CARD = "dirname $(grep -l 0x11e8 /sys/bus/pci/devices/*/device)"


@pytest.fixture(scope="module")
def guests(lab_kernel: Kernel) -> Iterator[Guests]:
    with Guests(skip=pytest.skip) as guests:
        yield guests


@pytest.fixture(scope="module")
def guest(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One boot for all tests that use it."""
    source = tmp_path_factory.mktemp("served") / "source"
    source.write_bytes(SOURCE * 100_000)
    with guests(
        devices=[f"virtio-rng,source={source}", "edu"], modules=["evdev"], files={"/told": b"once\n"}, served=True
    ) as guest:
        yield guest


def test_drivers_use_devices_of_packages(guest: Guest, lab_kernel: Kernel) -> None:
    assert guest.run("uname -r") == lab_kernel.version
    assert guest.run("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
    assert SOURCE.decode() in guest.python("print(open('/dev/hwrng', 'rb').read(256).decode())")
    base = guest.run(f"head -n 1 $({CARD})/resource").split()[0]
    assert guest.run(f"devmem {base} 32") == "0x010000ED"


def test_guest_has_the_files_and_modules_that_it_was_to_have(guest: Guest) -> None:
    assert guest.run("cat /told; grep -c ^evdev /proc/modules").split() == ["once", "1"]


def test_failures_and_the_kernels_words_come_to_the_test(guest: Guest) -> None:
    with pytest.raises(CommandFailed, match="ZeroDivisionError"):
        guest.python("1 / 0")
    guest.run("echo '<1>hello from within' > /dev/kmsg")
    assert "hello from within" in guest.console()
    assert guest.log() == ""


def test_guest_that_reboots_has_its_devices_again(guest: Guest) -> None:
    guest.run("rm /told")
    guest.reboot()
    assert guest.run(f"cat /told; cat $({CARD})/vendor").split() == ["once", "0x1234"]


def test_device_that_can_not_be_served_says_why(guests: Guests, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="the memory is the front-end's"):
        guests(devices=[f"virtio-balloon,control={tmp_path / 'balloon'}"], served=True).__enter__()
