"""``python -m benchmarks.blk_daemon --socket-path=PATH OPTIONS``: a disk of ours for a vhost-user client.

``acrn-dm-vhost-user`` with one more kind of device, which ends with this process.
"""

import sys

from acrn_dm.export import cli

KIND = "blk"


def main() -> int:
    """The program's exit status."""
    cli.KINDS[KIND] = cli.Kind(device="virtio-blk", default="nodisk", help="a disk")
    return cli.main([KIND, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
