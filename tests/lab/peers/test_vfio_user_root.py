"""A root file system on a disk of ours, by vfio-user: a stock guest boots from it, reads all of it, writes to it and
executes what is on it, on two CPUs, and complains of nothing.
"""

import random
import struct
import subprocess
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.kernels.debian import Kernel
from lab.qemu.boots import OF_ANY_CLIENT, complaints
from lab.qemu.guest import QemuGuest
from lab.qemu.root import Boot, Root, boot, our_disk

pytestmark = pytest.mark.lab
SUBJECTS = ("virtio", "vda", "EXT4", "I/O error", "segfault", "BUG", "WARNING", "stall")
MOV_EAX, RET = 0xB8, 0xC3
BLOCK, BLOCKS = 4096, 200
NOISE = random.Random(1).randbytes(64)  # how the file of noise begins


@pytest.fixture(scope="module")
def root(lab_kernel: Kernel, qemu: list[str], tmp_path_factory: pytest.TempPathFactory) -> Root:
    folder = tmp_path_factory.mktemp("root")
    source, program = Path(__file__).with_name("translated.c"), folder / "translated"
    done = subprocess.run(["gcc", "-O1", "-static", "-o", program, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = b"".join(struct.pack("<BIB", MOV_EAX, n, RET).ljust(BLOCK, b"\0") for n in range(BLOCKS))
    return Root.made(lab_kernel, qemu, folder, {"bin/translated": program.read_bytes(), "srv/code": code})


def test_guest_lives_on_a_disk_of_ours(root: Root, tmp_path: Path) -> None:
    """``python -m lab.qemu.boots`` does so a hundred times, beside QEMU's own disk."""
    said = boot(root, tmp_path, our_disk)
    silent = attrs.evolve(said, kernel="", qemu="", server="")
    assert [line for line in complaints(said, [silent]) if any(subject in line for subject in SUBJECTS)] == []
    assert said.server == ""


def test_cpu_that_is_emulated_executes_what_was_read_last(root: Root, tmp_path: Path) -> None:
    """QEMU without KVM keeps translations of code. Of our writes to memory that it shares it would not know."""
    stale = []

    def use(guest: QemuGuest) -> str:
        stale.append(guest.run(f"translated /srv/code {BLOCKS}"))
        return guest.run("mount -o remount,ro /; dmesg -r")

    boot(root, tmp_path, our_disk, use)
    assert stale == ["0"]


def test_root_that_is_not_as_it_was_made_is_noticed(root: Root, tmp_path: Path) -> None:
    """A byte of a file that only this notices."""
    damaged = bytearray(root.image.read_bytes())
    noise = damaged.index(NOISE)
    damaged[noise] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(HarnessError, match="sha256sum"):
        boot(attrs.evolve(root, image=tmp_path / "damaged"), tmp_path, our_disk)


def test_what_one_boot_says_and_no_other_is_a_complaint() -> None:
    reference = Boot(kernel="<4>[ 1.0] pci 0000:00:01.0: known\n<6>[ 1.0] new", qemu="known", server="", seconds=1.0)
    assert complaints(reference, [reference]) == []
    ours = Boot(
        kernel="<4>[ 2.0] pci 0000:00:02.0: known\n<4>[ 2.0] new",
        qemu=f"known\nwarning: {OF_ANY_CLIENT}\nagain",
        server="here",
        seconds=1.0,
    )
    assert complaints(ours, [reference]) == ["new", "again", "here"]
