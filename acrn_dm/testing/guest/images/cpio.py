"""A writer of initramfs archives in the cpio "newc" format.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat

import attrs

_ALIGNMENT = 4


@attrs.frozen(kw_only=True)
class Entry:
    """One file, directory or symbolic link. A link's content is its target."""

    path: str  # without a leading slash
    mode: int  # type and permission bits, as in st_mode
    content: bytes = b""


def directory(path: str) -> Entry:
    return Entry(path=path, mode=stat.S_IFDIR | 0o755)


def file(path: str, content: bytes, mode: int = 0o644) -> Entry:
    return Entry(path=path, mode=stat.S_IFREG | mode, content=content)


def symlink(path: str, target: str) -> Entry:
    return Entry(path=path, mode=stat.S_IFLNK | 0o777, content=target.encode())


def archive(entries: list[Entry]) -> bytes:
    """The archive of these entries, parent directories first and made where missing. Equal entries give equal bytes."""
    out = bytearray()
    for number, entry in enumerate([*_with_parents(entries), Entry(path="TRAILER!!!", mode=0)], start=1):
        out += _header(number, entry)
        out += entry.path.encode() + b"\0"
        _pad(out)
        out += entry.content
        _pad(out)
    return bytes(out)


def _with_parents(entries: list[Entry]) -> list[Entry]:
    complete: dict[str, Entry] = {}
    for entry in entries:
        parts = entry.path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            complete.setdefault(parent, directory(parent))
        complete[entry.path] = entry
    return list(complete.values())


def _header(inode: int, entry: Entry) -> bytes:
    """Magic and thirteen fields of eight hexadecimal digits; owner root, time 0."""
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    name_size = len(entry.path.encode()) + 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, name_size, 0)
    return b"070701" + b"".join(b"%08X" % field for field in fields)


def _pad(out: bytearray) -> None:
    out.extend(b"\0" * (-len(out) % _ALIGNMENT))
