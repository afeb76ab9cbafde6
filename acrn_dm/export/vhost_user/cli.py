"""``acrn-dm-vhost-user console --socket-path=PATH [OPTIONS]``: the name under which consoles were served first.

``acrn-dm-export vhost-user`` serves every virtio device; this program has the command line that it always had.
"""

import argparse
import functools
import json
import os
import sys
from collections.abc import Sequence

from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.export import program
from acrn_dm.export.confined import confine_devices
from acrn_dm.export.making import make_device
from acrn_dm.export.sockets import places
from acrn_dm.export.vhost_user.serving import log_to_stderr, serve

PROGRAM = "acrn-dm-vhost-user"
DEFAULT = "@stdio:console"


def make_parser() -> program.Parser:
    """The command line."""
    parser = program.Parser(prog=PROGRAM, description="Serve a virtio device over vhost-user.", allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    sub = kinds.add_parser("console", help="a virtio-console", allow_abbrev=False)
    program.add_socket_options(sub, several=False)
    text = "ports as for -s virtio-console: [@]TYPE:PORTNAME[=PATH][:server|client][:drop|wait],... "
    sub.add_argument("options", nargs="?", default=DEFAULT, metavar="OPTIONS", help=f"{text}(default: {DEFAULT})")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return the exit code. Raises nothing.

    Without *argv* it is ``sys.argv[1:]``, and its process ends with it: signals which ask for that are not given back.
    """
    return program.run(PROGRAM, lambda: _main(make_parser().parse_args(argv), last=argv is None))


def _main(arguments: argparse.Namespace, *, last: bool) -> int:
    if arguments.print_capabilities:
        print(json.dumps({"type": arguments.kind}))
        return 0
    program.check_user(arguments.user)
    at = places(arguments.socket_path[-1:], arguments.fd[-1:], 1, os.environ)
    log_to_stderr(PROGRAM, verbose=arguments.verbose)
    plugins = make_plugin_manager(entry_points=False)
    made = make_device(f"virtio-console,{arguments.options}", plugins, program=PROGRAM)
    given = arguments.sandbox, [made.device]
    confined = functools.partial(confine_devices, *given, listens=True, user=arguments.user)
    serve([made], at, dumped=arguments.dump_guest_core == "on", last=last, opened=confined)
    return 0


if __name__ == "__main__":
    sys.exit(main())
