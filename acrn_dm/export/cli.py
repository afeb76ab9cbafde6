"""``acrn-dm-export PROTOCOL DEVICE[,OPTIONS] ...``: devices of ours for another program's virtual machine.

The program keeps to the conventions for such processes (QEMU's docs/interop/vhost-user.rst): it stays in the
foreground, ends with 0 on SIGTERM, and says on stderr why it can't start.
"""

import sys
from collections.abc import Sequence

from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.export import program
from acrn_dm.export.vfio_user import command as vfio_user
from acrn_dm.export.vhost_user import command as vhost_user

PROGRAM = "acrn-dm-export"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return the exit code. Raises nothing.

    Without *argv* it is ``sys.argv[1:]``, and its process ends with it: signals which ask for that are not given back.
    """
    return program.run(PROGRAM, lambda: _main(sys.argv[1:] if argv is None else argv, last=argv is None))


def _main(argv: Sequence[str], *, last: bool) -> int:
    plugins = make_plugin_manager()
    parser = program.Parser(prog=PROGRAM, description="Serve devices to other programs.", allow_abbrev=False)
    protocols = parser.add_subparsers(dest="protocol", required=True, metavar="PROTOCOL", parser_class=program.Parser)
    taught = vhost_user.add_parser(protocols)
    vfio_user.add_parser(protocols)
    if {"-h", "--help"} & set(argv):  # all plugins are imported for the list
        vhost_user.teach(taught, plugins)
    arguments = parser.parse_args(argv)
    run = vfio_user.run if arguments.protocol == vfio_user.NAME else vhost_user.run
    return run(arguments, plugins, prog=PROGRAM, last=last)


if __name__ == "__main__":
    sys.exit(main())
