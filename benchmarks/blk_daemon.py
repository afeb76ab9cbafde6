"""``python -m benchmarks.blk_daemon --socket-path=PATH OPTIONS``: a disk of ours for a vhost-user client.

``acrn-dm-export vhost-user virtio-blk,OPTIONS`` in a process of this name.
"""

import sys

from acrn_dm.export import cli


def main() -> int:
    """The program's exit status."""
    *options, text = sys.argv[1:]
    return cli.main(["vhost-user", *options, f"virtio-blk,{text}"])


if __name__ == "__main__":
    sys.exit(main())
