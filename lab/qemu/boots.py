"""``python -m lab.qemu.boots [--boots N]``: whether a stock guest complains of a root file system on a disk of ours.

It boots under QEMU by vfio-user, again and again, each time from a new copy of the image and with a new process of
ours, and uses its root on both CPUs. What its kernel, QEMU and our process say is compared with what is said where
QEMU's own virtio-blk has the same image, in boots before and between: a host that is busy has kernels say more. Each
line that was not said there is printed, and the exit status tells whether there was one.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.served.newer import newer_qemu, version
from lab.guest.dmesg import additional_lines
from lab.paths import LAB
from lab.qemu.root import Boot, Root, boot, our_disk, qemu_disk

REFERENCE_EACH = 10  # boots of ours behind one that is compared with
# QEMU says so of each device that has no interrupt for errors of its bus; one that is no hardware has no such errors.
OF_ANY_CLIENT = "Could not enable error recovery for the device"


def complaints(said: Boot, references: Sequence[Boot]) -> list[str]:
    """Lines of *said* that were said like that in none of *references*."""
    lines = additional_lines(said.kernel, "\n".join(reference.kernel for reference in references))
    known = {line for reference in references for line in reference.qemu.splitlines()}
    lines += [line for line in said.qemu.splitlines() if line not in known and OF_ANY_CLIENT not in line]
    return lines + said.server.splitlines()


@attrs.define
class Account:
    """All boots so far: ours by number, those that were not whole, and what they are compared with."""

    ours: dict[int, Boot] = attrs.field(factory=dict)
    broken: int = 0
    references: list[Boot] = attrs.field(factory=list)

    def boot(self, root: Root, folder: Path, number: int) -> None:
        """Boot number *number*, behind one with QEMU's disk where it is time. Raises HarnessError for that."""
        if number % REFERENCE_EACH == 1:
            self.references.append(boot(root, folder, qemu_disk))
        try:
            self.ours[number] = boot(root, folder, our_disk)
        except HarnessError as error:
            self.broken += 1
            print(f"boot {number}: {error}", flush=True)

    def said(self) -> int:
        """Print the lines of ours alone and what there was; returns the number of the former."""
        found = [
            f"boot {number}: {line}" for number, said in self.ours.items() for line in complaints(said, self.references)
        ]
        seconds = [
            statistics.median(boot.seconds for boot in boots)
            for boots in (self.ours.values(), self.references)
            if boots
        ]
        print("\n".join(found), end="\n" * bool(found))
        print(
            f"{len(self.ours) + self.broken} boots, {self.broken} broken, {len(found)} lines more than in "
            f"{len(self.references)} with QEMU's own disk; up in "
            + ", with that in ".join(f"{s:.1f} s" for s in seconds)
        )
        return len(found)


def main(arguments: Sequence[str]) -> int:
    """0 when there was nothing."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[2])
    parser.add_argument("--boots", type=int, default=100, metavar="N", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    LAB.mkdir(parents=True, exist_ok=True)
    account = Account()
    with tempfile.TemporaryDirectory(dir=LAB) as name, contextlib.suppress(KeyboardInterrupt):
        folder, kernel, qemu = Path(name), debian_kernel(), newer_qemu()
        print(f"{kernel.version} under QEMU {version(qemu)}", flush=True)
        root = Root.made(kernel, qemu.argv, folder)
        for number in range(1, options.boots + 1):
            account.boot(root, folder, number)
    return 1 if account.said() or account.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
