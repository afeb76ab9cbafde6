"""``acrn-dm-vhost-user KIND --socket-path=PATH [OPTIONS]``: one device of ours for another program's virtual machine.

The program keeps to the conventions for vhost-user back-ends (QEMU's docs/interop/vhost-user.rst): it stays in the
foreground, ends with 0 on SIGTERM, and says on stderr why it can't start.
"""

import argparse
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, cast

from acrn_dm.base.errors import AcrnDmError, ConfigError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.log_text import escaped
from acrn_dm.base.process import privileges
from acrn_dm.base.process.stderr import StderrHandler, say
from acrn_dm.base.records import frozen
from acrn_dm.base.sockets.unix_listener import UnixListener
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.devices.terminal.signals import signals_to
from acrn_dm.export.device import ExportedDevice
from acrn_dm.export.server import Server, inherited
from acrn_dm.machine.resolve import resolve_one
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import WindowWatcher
from acrn_dm.virtio.placement import USERSPACE

PROGRAM = "acrn-dm-vhost-user"
EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIG = 1, 64, 78
SWITCH_INTERVAL_S = 0.0005  # two Python threads at most are busy: main loop and I/O loop


@frozen(kw_only=True)
class Kind:
    """A kind of device that can be served: its name in ``-s`` and what it gets if nothing is said."""

    device: str
    default: str
    help: str


KINDS = {  # by the names of QEMU's VhostUserBackendType
    "console": Kind(
        device="virtio-console",
        default="@stdio:console",
        help="ports as for -s virtio-console: [@]TYPE:PORTNAME[=PATH][:server|client][:drop|wait],... "
        "(default: @stdio:console)",
    ),
}


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of leaving with an exit code of its own."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(message, usage=True)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog=PROGRAM, description="Serve a virtio device over vhost-user.", allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        sub = kinds.add_parser(name, help=f"a {kind.device}", allow_abbrev=False)
        where = sub.add_mutually_exclusive_group()
        where.add_argument("-s", "--socket-path", type=Path, metavar="PATH", help="listen at this socket")
        where.add_argument("--fd", type=int, metavar="FDNUM", help="use this inherited socket, connected or listening")
        sub.add_argument("--print-capabilities", action="store_true", help="say as JSON what this is, and exit")
        sub.add_argument(
            "--dump-guest-core", choices=("on", "off"), default="off", help="guest memory in core dumps (default: off)"
        )
        sub.add_argument("-v", "--verbose", action="store_true", help="log more")
        sub.add_argument("options", nargs="?", default=kind.default, metavar="OPTIONS", help=kind.help)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return the exit code. Raises nothing.

    Without *argv* it is ``sys.argv[1:]``, and its process ends with it: signals which ask for that are not given back.
    """
    privileges.no_new_privileges()
    try:
        return _main(make_parser().parse_args(argv), last=argv is None)
    except ConfigError as e:
        _complain(e)
        return EXIT_USAGE if e.usage else EXIT_CONFIG
    except AcrnDmError as e:
        _complain(e)
        return EXIT_FAILURE


def _complain(error: AcrnDmError) -> None:
    say(f"{PROGRAM}: {escaped(str(error))}")


def _main(arguments: argparse.Namespace, *, last: bool) -> int:
    if arguments.print_capabilities:
        print(json.dumps({"type": arguments.kind}))
        return 0
    if arguments.socket_path is None and arguments.fd is None:
        raise ConfigError("--socket-path=PATH or --fd=FDNUM is needed", usage=True)
    level = logging.DEBUG if arguments.verbose else logging.WARNING
    logging.basicConfig(level=level, handlers=[StderrHandler(PROGRAM)])
    loop = IoLoop("main")
    dumped = arguments.dump_guest_core == "on"
    exported = ExportedDevice(
        make_device(KINDS[arguments.kind], arguments.options), loop, quit_=loop.stop, dumps_memory=dumped
    )
    device = exported.device
    window_changed = device.window_changed if isinstance(device, WindowWatcher) else lambda: None
    with signals_to(loop.stop, lambda: loop.call_soon(window_changed), last=last):
        try:
            _serve(exported, arguments.socket_path, arguments.fd)
        finally:
            exported.close()
            loop.close()
    return 0


def make_device(kind: Kind, text: str) -> VirtioDevice:
    """Make the device with options *text*, as ``-s 0,KIND,TEXT`` does. Opens nothing. Raises ConfigError."""
    plugins = make_plugin_manager(entry_points=False)
    device_type = plugins.device_types()[kind.device]
    context = DeviceContext(bdf=Bdf(slot=0), kind=kind.device, machine=PROGRAM)
    spec = DeviceSpec(bdf=context.bdf, kind=kind.device, text=text, origin=kind.device)
    resolved = resolve_one(spec, device_type, context, plugins)
    device = cast(VirtioDevice, resolved.create())
    if {device.placement.backend, resolved.context.backend or USERSPACE} != {USERSPACE}:
        raise ConfigError("a served device can't be served by others", option=kind.device, value=text)
    problems = device.check()
    if problems:
        raise ConfigError(problems[0])
    return device


def _serve(exported: ExportedDevice, path: Path | None, fd: int | None) -> None:
    """Serve until the loop is stopped, or until the one client of a connected socket is gone."""
    loop = exported.main_loop
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with _socket(path, fd) as given:
            exported.open()
            with contextlib.closing(Server(exported, given, loop.stop)):
                loop.run()
    finally:
        sys.setswitchinterval(interval)


@contextlib.contextmanager
def _socket(path: Path | None, fd: int | None) -> Iterator[socket.socket]:
    """Where clients are awaited, or the one client. Raises ConfigError or HostError."""
    if path is None:
        with inherited(-1 if fd is None else fd) as given:
            yield given
    else:
        with contextlib.closing(UnixListener(path, "--socket-path")) as listener:
            yield listener.socket


if __name__ == "__main__":
    sys.exit(main())
