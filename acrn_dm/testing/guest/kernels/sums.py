"""Checksums of what was unpacked: a cache that a full disk or a broken one has damaged is not booted from.

What is downloaded is checked by apt: against the signed lists of the archive.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from acrn_dm.testing.guest.errors import HarnessError

SUMS = ".sha256"


def write(tree: Path, patterns: Iterable[str]) -> None:
    """Keep the sums of the files of *tree* that match, as sha256sum prints them."""
    files = sorted({path for pattern in patterns for path in tree.glob(pattern) if path.is_file()})
    lines = (f"{_digest(path.read_bytes())}  {path.relative_to(tree)}\n" for path in files)
    (tree / SUMS).write_text("".join(lines))


def intact(tree: Path, files: Iterable[Path]) -> bool:
    """Whether *files* of *tree* are what they were; false as well where no sums were kept."""
    try:
        for path in files:
            read(tree, path)
    except (HarnessError, OSError):
        return False
    return True


def read(tree: Path, path: Path) -> bytes:
    """The content of *path* of *tree*. Raises HarnessError when it is not what it was."""
    content = path.read_bytes()
    if f"{_digest(content)}  {path.relative_to(tree)}\n" not in (tree / SUMS).read_text():
        raise HarnessError(f"{path} is damaged: remove {tree}, and it is fetched anew")
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
