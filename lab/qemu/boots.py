"""``python -m lab.qemu.boots [--boots N]``: whether a stock guest complains of a root file system on a disk of ours.

It boots under QEMU by vfio-user, again and again, each time from a new copy of the image and with a new process of
ours, and uses its root on both CPUs. What its kernel, QEMU and our process say is compared with what is said where
QEMU's own virtio-blk has the same image, in some boots before. Each line that was not said there is printed, and the
exit status tells whether there was one.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.kernels.debian import debian_kernel
from lab.guest.dmesg import additional_lines
from lab.paths import LAB
from lab.qemu.newer import newer_qemu, version
from lab.qemu.root import Boot, Disk, Root, boot, our_disk, qemu_disk

REFERENCES = 5
# QEMU says so of each device that has no interrupt for errors of its bus; one that is no hardware has no such errors.
OF_ANY_CLIENT = "Could not enable error recovery for the device"


def complaints(said: Boot, references: Sequence[Boot]) -> list[str]:
    """Lines of *said* that were said like that in none of *references*."""
    lines = additional_lines(said.kernel, "\n".join(reference.kernel for reference in references))
    known = {line for reference in references for line in reference.qemu.splitlines()}
    lines += [line for line in said.qemu.splitlines() if line not in known and OF_ANY_CLIENT not in line]
    return lines + said.server.splitlines()


def boots(root: Root, folder: Path, disk: Disk, number: int) -> Iterator[Boot | HarnessError]:
    """So many, and what kept one from being whole."""
    for _ in range(number):
        try:
            yield boot(root, folder, disk)
        except HarnessError as error:
            yield error


def main(arguments: Sequence[str]) -> int:
    """0 when there was nothing."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[2])
    parser.add_argument("--boots", type=int, default=100, metavar="N", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    LAB.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LAB) as name:
        folder, kernel, qemu = Path(name), debian_kernel(), newer_qemu()
        print(f"{kernel.version} under QEMU {version(qemu)}", flush=True)
        root = Root.made(kernel, qemu.argv, folder)
        references = [boot(root, folder, qemu_disk) for _ in range(REFERENCES)]
        return _compared(boots(root, folder, our_disk, options.boots), references)


def _compared(ours: Iterator[Boot | HarnessError], references: Sequence[Boot]) -> int:
    broken = lines = 0
    seconds = []
    for number, said in enumerate(ours, start=1):
        if isinstance(said, Boot):
            seconds.append(said.seconds)
            found = complaints(said, references)
            lines += len(found)
        else:
            found, broken = [str(said)], broken + 1
        for line in found:
            print(f"boot {number}: {line}", flush=True)
    print(
        f"{len(seconds) + broken} boots, {broken} broken, {lines} lines more than with QEMU's own disk; up in "
        f"{statistics.median(seconds or [0]):.1f} s, with QEMU's own in "
        f"{statistics.median(reference.seconds for reference in references):.1f} s"
    )
    return 1 if broken or lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
