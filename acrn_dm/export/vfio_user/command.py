"""``acrn-dm-export vfio-user DEVICE[,OPTIONS]... --socket-path=PATH``: command line, and what it does."""

import argparse
import functools
import json
import os

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.plugins import PluginManager, blame
from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.export import program
from acrn_dm.export.confined import confine_devices
from acrn_dm.export.making import LISTED_BY, NOT_SERVED, QUEUES
from acrn_dm.export.sockets import places
from acrn_dm.export.vfio_user.serving import Made, serve
from acrn_dm.export.vhost_user.serving import log_to_stderr
from acrn_dm.machine.devices import make_function
from acrn_dm.machine.resolve import resolve_one, wanted
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.pci.transport import VirtioPci
from acrn_dm.virtio.placement import Placed

NAME = "vfio-user"
SUMMARY = "a PCI function, virtio devices too, for a client such as QEMU (from 10.1 on)"
TEACHING = """\
A device is written as behind 'acrn-dm -s SLOT,': its name, then its options.

  acrn-dm-export vfio-user edu --socket-path=/run/e.sock
  acrn-dm-export vfio-user virtio-blk,/srv/disk.img --socket-path=/run/d.sock
  acrn-dm-export vfio-user edu virtio-rnd --socket-path=/run/s    (/run/s0 and /run/s1)

QEMU shows it to its guest; memory that is a shared file is reached without messages,
and rings reach no other:

  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=ram,size=1G,share=on -machine q35,memory-backend=ram \\
    -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/run/e.sock"}}' ...

The process stays in the foreground and ends with 0 on SIGTERM. Each device serves one client at a time.
"""


def add_parser(protocols: "argparse._SubParsersAction[program.Parser]") -> program.Parser:
    """The command line below the program's."""
    parser = protocols.add_parser(
        NAME,
        help=SUMMARY,
        description="Serve PCI functions over vfio-user.",
        epilog=TEACHING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("devices", nargs="+", metavar="DEVICE[,OPTIONS]", help="as behind 'acrn-dm -s SLOT,'")
    program.add_socket_options(parser, several=True)
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
    program.check_user(arguments.user)
    at = places(arguments.socket_path, arguments.fd, len(arguments.devices), os.environ)
    log_to_stderr(prog, verbose=arguments.verbose)
    plugins.load_devices(text.partition(",")[0] for text in arguments.devices)
    functions = [
        make(text, plugins, program=prog, slot=slot, virtio_msi=arguments.virtio_msi)
        for slot, text in enumerate(arguments.devices)
    ]
    devices = [f.device if isinstance(f, VirtioPci) else f for f in (made.function for made in functions)]
    serve(
        functions,
        at,
        dumped=arguments.dump_guest_core == "on",
        tells_writes=arguments.tell_writes,
        last=last,
        opened=functools.partial(confine_devices, arguments.sandbox, devices, listens=True, user=arguments.user),
    )
    return 0


def make(text: str, plugins: PluginManager, *, program: str, slot: int = 0, virtio_msi: bool = False) -> Made:
    """The function of *text* (``edu,latency=1``), as ``-s SLOT,TEXT`` makes it, and whom its failures are blamed on.

    *program* and *slot* are a part of its name; *virtio_msi* is as the option of ``acrn-dm``. Opens nothing. Raises
    ConfigError, PluginError.
    """
    name, _, rest = text.partition(",")
    spec = DeviceSpec(bdf=Bdf(slot=slot), kind=name, text=rest, origin=text)
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
    return Made(function=function, blamed=blamed)


def _check(function: VirtioPci[VirtioDevice], name: str) -> None:
    """Raises ConfigError for what can't be served."""
    device = function.device.device_id
    if device in NOT_SERVED:
        raise ConfigError(NOT_SERVED[device], option=name)
    if not function.data_plane.backend.follows_memory:
        backend = function.backend_type.name
        raise ConfigError(f"the backend {backend} does not follow memory that a client changes", option=name)
