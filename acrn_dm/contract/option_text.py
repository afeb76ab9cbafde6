"""Option text: the commas of a command line, and the names that other programs have for options.

A comma ends an option; two of them are one comma of a value, as in QEMU: ``path=/a,,b,ro`` is ``path`` with ``/a,b``
and ``ro``. So an empty option can't be written. What is read from a TOML table is never quoted.
"""

import re
from collections.abc import Collection, Iterable

MAX_WORD = 64  # longer words are not compared with known ones: the comparison is quadratic

_TOKEN = re.compile(r"((?:[^,]|,,)*)(,|\Z)")

# Names in QEMU, cloud-hypervisor, crosvm, Firecracker and bhyve, and ours, the first that the device has.
ELSEWHERE = {
    "readonly": ("ro", "read_only"),
    "read_only": ("ro",),
    "is_read_only": ("ro",),
    "ro": ("read_only",),
    "file": ("path", "source"),
    "filename": ("path", "source"),
    "image": ("path",),
    "path_on_host": ("path",),
    "drive": ("path",),
    "rng": ("source",),
    "src": ("source",),
    "path": ("source",),
    "ifname": ("tap",),
    "tap_name": ("tap",),
    "tapif": ("tap",),
    "host_dev_name": ("tap",),
    "macaddr": ("mac",),
    "guest_mac": ("mac",),
    "mac_address": ("mac",),
    "queues": ("mq",),
    "num_queues": ("mq", "queues"),
    "vq_pairs": ("mq",),
    "socket": ("vhost_user",),
    "vhost_user": ("socket",),
    "device_id": ("id",),
    "virtio_id": ("id",),
    "num_vqs": ("queues",),
    "config_size": ("config",),
    "vq_size": ("queue_size",),
    "mount_tag": ("tag",),
    "num_request_queues": ("queues",),
    "vhost_socket": ("vhost_user",),
    "logical_block_size": ("sectorsize",),
    "physical_block_size": ("sectorsize",),
    "block_size": ("sectorsize",),
    "share_rw": ("share",),
    "sparse": ("discard",),
    "unmap": ("discard",),
    "direct": ("nocache",),
    "o_direct": ("nocache",),
    "cache_type": ("cache",),
    "write_cache": ("cache",),
    "threads": ("iothread",),
    "num_threads": ("iothread",),
    "guest_cid": ("cid",),
    "context_id": ("cid",),
    "ports": ("max_ports",),
    "chardev": ("ports",),
}


def split_raw(text: str) -> list[str]:
    """The options in *text* as they are written, quoted commas still double; one, empty, for an empty text."""
    found = []
    at = 0
    while True:
        match = _TOKEN.match(text, at)
        assert match is not None  # it matches the empty text
        found.append(match[1])
        at = match.end()
        if not match[2]:
            return found


def split_options(text: str) -> list[str]:
    """The options in *text*, each with the commas that it means."""
    return [unquoted(raw) for raw in split_raw(text)]


def unquoted(raw: str) -> str:
    """One option as ``split_raw`` has it, with the commas that it means."""
    return raw.replace(",,", ",")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'? `` for the known word nearest to *word*, or nothing."""
    import difflib  # noqa: PLC0415  # nobody asks while all is well

    near = difflib.get_close_matches(word[:MAX_WORD], list(known), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def option_meant(word: str, known: Collection[str]) -> str:
    """As ``did_you_mean``, for the name of an option: what another program calls it counts first."""
    plain = word.replace("-", "_").lower()
    ours = next((name for name in ELSEWHERE.get(plain, ()) if name in known), None)
    return f"did you mean {ours!r}? " if ours is not None else did_you_mean(plain, known)
