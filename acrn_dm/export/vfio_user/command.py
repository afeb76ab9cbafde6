"""``acrn-dm-export vfio-user DEVICE[,OPTIONS] --socket-path=PATH``: command line, and what it does."""

import argparse
import contextlib
import functools
import json
import os
from collections.abc import Callable

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.plugins import PluginManager, blame
from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.devices.terminal.signals import signals_to
from acrn_dm.export import program
from acrn_dm.export.confined import confine_devices
from acrn_dm.export.making import LISTED_BY, NOT_SERVED, QUEUES
from acrn_dm.export.sockets import Place, places
from acrn_dm.export.vfio_user.function import ExportedFunction
from acrn_dm.export.vfio_user.server import Server
from acrn_dm.export.vhost_user.serving import log_to_stderr
from acrn_dm.machine.devices import make_function
from acrn_dm.machine.resolve import resolve_one, wanted
from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.pci.transport import VirtioPci
from acrn_dm.virtio.placement import Placed

NAME = "vfio-user"
SUMMARY = "a PCI function, virtio devices too, for a client such as QEMU (from 10.1 on)"
TEACHING = """\
A device is written as behind 'acrn-dm -s SLOT,': its name, then its options.

  acrn-dm-export vfio-user edu --socket-path=/run/e.sock
  acrn-dm-export vfio-user virtio-blk,/srv/disk.img --socket-path=/run/d.sock

QEMU shows it to its guest; memory that is a shared file is reached without messages,
and rings reach no other:

  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=ram,size=1G,share=on -machine q35,memory-backend=ram \\
    -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/run/e.sock"}}' ...

The process stays in the foreground, ends with 0 on SIGTERM, and serves one client at a time.
"""


def add_parser(protocols: "argparse._SubParsersAction[program.Parser]") -> program.Parser:
    """The command line below the program's."""
    parser = protocols.add_parser(
        NAME,
        help=SUMMARY,
        description="Serve a PCI function over vfio-user.",
        epilog=TEACHING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("device", metavar="DEVICE[,OPTIONS]", help="as behind 'acrn-dm -s SLOT,'")
    program.add_socket_options(parser, several=False)
    parser.add_argument(
        "--virtio_msi",
        action="store_true",
        help="a virtio device has a pin and one MSI vector instead of MSI-X, with which QEMU 11 can unplug none",
    )
    parser.add_argument(
        "--tell-writes",
        action="store_true",
        help="tell the client of each write to its memory, slowly: for CPUs that it emulates (QEMU without KVM)",
    )
    return parser


def run(arguments: argparse.Namespace, plugins: PluginManager, *, prog: str, last: bool) -> int:
    """Do what *arguments* say; returns the exit code. Raises AcrnDmError."""
    if arguments.print_capabilities:
        print(json.dumps({"type": "pci"}))
        return 0
    (at,) = places(arguments.socket_path[-1:], arguments.fd[-1:], 1, os.environ)
    log_to_stderr(prog, verbose=arguments.verbose)
    plugins.load_devices([arguments.device.partition(",")[0]])
    function, blamed = make(arguments.device, plugins, program=prog, virtio_msi=arguments.virtio_msi)
    with contextlib.ExitStack() as stack:
        loop = IoLoop("main")
        stack.callback(loop.close)
        dumps = arguments.dump_guest_core == "on"
        exported = ExportedFunction(function, loop, dumps_memory=dumps, tells_writes=arguments.tell_writes)
        stack.callback(exported.close)
        stack.enter_context(signals_to(loop.stop, lambda: loop.call_soon(exported.window_changed), last=last))
        device = function.device if isinstance(function, VirtioPci) else function
        confined = functools.partial(confine_devices, arguments.sandbox, [device], listens=True)
        _serve(exported, blamed, at, stack, confined)
    return 0


def make(text: str, plugins: PluginManager, *, program: str, virtio_msi: bool = False) -> tuple[PciFunction, str]:
    """The function of *text* (``edu,latency=1``), as ``-s SLOT,TEXT`` makes it, and whom its failures are blamed on.

    *virtio_msi* is as the option of ``acrn-dm``. Opens nothing. Raises ConfigError, PluginError.
    """
    name, _, rest = text.partition(",")
    spec = DeviceSpec(bdf=Bdf(slot=0), kind=name, text=rest, origin=text)
    kind = wanted(spec, plugins, LISTED_BY)
    owner = plugins.provider(kind)
    provider = "" if owner is None or owner.built_in else str(owner)
    context = DeviceContext(
        bdf=spec.bdf, kind=name, machine=program, provider=provider, vcpus=QUEUES, virtio_msi=virtio_msi
    )
    blamed = f"{owner}: {name}"
    with blame(blamed):
        function = make_function(resolve_one(spec, kind, context, plugins), plugins)
        if isinstance(function, VirtioPci):
            _check(function, name)
        elif isinstance(function, Placed):
            raise ConfigError("it is another process's already", option=name)
        problems = function.check()
    if problems:
        raise ConfigError(problems[0])
    return function, blamed


def _check(function: VirtioPci[VirtioDevice], name: str) -> None:
    """Raises ConfigError for what can't be served."""
    device = function.device.device_id
    if device in NOT_SERVED:
        raise ConfigError(NOT_SERVED[device], option=name)
    if not function.data_plane.backend.follows_memory:
        backend = function.backend_type.name
        raise ConfigError(f"the backend {backend} does not follow memory that a client changes", option=name)


def _serve(
    exported: ExportedFunction, blamed: str, at: Place, stack: contextlib.ExitStack, opened: Callable[[], None]
) -> None:
    given = stack.enter_context(at.open())
    with blame(blamed):
        exported.open()
    opened()
    server = Server(exported, given, exported.main_loop.stop)
    stack.callback(server.close)
    exported.main_loop.run()
