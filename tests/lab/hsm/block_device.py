"""The block device of launch lines I: it is told from another disk by its options alone, so that each machine that has
it may be about something else besides.
"""

from typing import Any

import attrs

from tests.lab.hsm.hsm_scene import Hsm
from tests.lab.hsm.launch_scripts import DISKS
from tests.lab.machines.small_machine import Run

NODE = "/dev/nvme1n1"
IMAGE = "/run/nvme.img"
URING, THREADS, ON_CPUS, NO_BST, NO_CACHE = DISKS


@attrs.define(eq=False)
class BlockDevice:
    """A node of that name with the numbers of a loop device, which is as real as any."""

    hsm: Hsm
    _loop: str = ""

    def make(self) -> None:
        made = self.hsm.lab.run(f"truncate -s 1M {IMAGE} && losetup -f --show {IMAGE}")
        assert made.rc == 0, made.stderr
        self._loop = made.stdout.strip()
        number = self._loop.removeprefix("/dev/loop")
        assert self.hsm.lab.run(f"rm -f {NODE}; mknod {NODE} b 7 {number}").rc == 0

    def remove(self) -> None:
        self.hsm.lab.run(f"losetup -d {self._loop}; rm -f {NODE} {IMAGE}")

    def boot(self, text: str, *arguments: str, **how: Any) -> Run:
        """The small machine whose disk is this device as a launch line has it."""
        self.fill()
        return self.hsm.boot(*arguments, disk=text, **how)

    def fill(self) -> None:
        """Write what the guest is to find."""
        source = self.hsm.rig.make_disk()
        assert self.hsm.lab.run(f"dd if={source} of={NODE} bs=64k conv=fsync").rc == 0

    def assert_clean(self, text: str, run: Run, devices: int = 2) -> None:
        """As the machine's; the guest has counted its boots on it, too, and its backend is what the line says."""
        self.hsm.assert_clean(run, devices)
        assert "is served by threads" not in run.output
        assert self.hsm.lab.run(f"head -c 512 {NODE}").stdout.strip() == str(len(run.report["boot"]))
