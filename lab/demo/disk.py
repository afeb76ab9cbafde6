"""The demonstration's disk image: made, and judged when the guest is done with it."""

import hashlib
import random
import secrets
from pathlib import Path

from lab.demo.log import Check

MIB = 1 << 20
READ_MIB = 64
WRITE_MIB = 16


class Disk:
    """The image: known bytes in the first part, zeros where the guest is to write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nonce = secrets.token_hex(12)
        content = random.Random(20180401).randbytes(READ_MIB * MIB)
        self.digest = hashlib.sha256(content).hexdigest()
        with path.open("wb") as file:
            file.write(content)
            file.truncate((READ_MIB + WRITE_MIB) * MIB)

    def verify(self) -> Check:
        """Are the first part as it was and the second as the guest was told to write it?"""
        line = self.nonce.encode() + b"\n"
        size = WRITE_MIB * MIB
        written = (line * (size // len(line) + 1))[:size]
        with self.path.open("rb") as file:
            kept = hashlib.sha256(file.read(READ_MIB * MIB)).hexdigest() == self.digest
            arrived = file.read() == written
        return Check(
            ok=kept and arrived,
            detail=f"first {READ_MIB} MiB {'unchanged' if kept else 'CHANGED'}, "
            f"{WRITE_MIB} MiB written by the guest {'arrived' if arrived else 'DIFFER'}",
        )
