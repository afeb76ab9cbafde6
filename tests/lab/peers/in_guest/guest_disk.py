"""A disk of a guest's, as the guest has it and as it is in its file."""

import hashlib
from pathlib import Path

import attrs

from acrn_dm.memory.guest_memory import MIB
from lab.qemu.guest import QemuGuest

PART_MIB = 4


@attrs.frozen
class GuestDisk:
    """``/dev/vda`` of *guest*, whose file is *image*: in parts, of which each begins after so many MiB."""

    guest: QemuGuest
    image: Path

    def digest(self, skip: int) -> str:
        """Of a part, as the guest reads it from the device."""
        command = f"dd if=/dev/vda bs=1M skip={skip} count={PART_MIB} iflag=direct 2> /dev/null | sha256sum"
        return self.guest.run(command).split()[0]

    def written(self, skip: int) -> str:
        """Of that part of the file."""
        return hashlib.sha256(self.image.read_bytes()[skip * MIB : (skip + PART_MIB) * MIB]).hexdigest()

    def write(self, skip: int) -> str:
        """Have the guest write noise there; returns the digest of it."""
        made = f"dd if=/dev/urandom of=/tmp/noise bs=1M count={PART_MIB} 2> /dev/null"
        copied = f"dd if=/tmp/noise of=/dev/vda bs=1M seek={skip} oflag=direct conv=fsync 2> /dev/null"
        return self.guest.run(f"{made} && {copied} && sha256sum < /tmp/noise").split()[0]
