"""``acrn-dm-export vhost-user DEVICE[,OPTIONS]... --socket-path=PATH``: command line, help, and what it does."""

import argparse
import functools
import json
import os
import textwrap

from acrn_dm.base.decimal_text import decimal
from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.export import program
from acrn_dm.export.confined import confine_devices
from acrn_dm.export.listing import served, type_name
from acrn_dm.export.making import make_device
from acrn_dm.export.sockets import places
from acrn_dm.export.vhost_user.serving import log_to_stderr, serve

NAME = "vhost-user"
SUMMARY = "any virtio device, for a front-end such as QEMU, cloud-hypervisor, crosvm or acrn-dm"
MAX_COUNT = 64
WIDTH, INDENT = 100, 26
TEACHING = """\
A device is written as behind 'acrn-dm -s SLOT,': its name, then its options. What each takes is shown by
'acrn-dm -s NAME,help'; iothread=, poll_us= and packed=off are for all.

  acrn-dm-export vhost-user virtio-blk,./disk.img --socket-path=/run/d.sock
  acrn-dm-export vhost-user virtio-blk,a.img virtio-rnd --socket-path=/run/d.sock    (/run/d.sock0 and /run/d.sock1)

QEMU shows such a disk to its guest, whose memory has to be a file that can be shared:

  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=ram,size=1G,share=on -machine memory-backend=ram \\
    -chardev socket,id=d,path=/run/d.sock,reconnect=1 -device vhost-user-blk-pci,chardev=d ...

The process stays in the foreground and ends with 0 on SIGTERM. Each device serves one client at a time. Sockets may
also come from systemd (LISTEN_FDS): one for each device, in their order.

"""


def add_parser(protocols: "argparse._SubParsersAction[program.Parser]") -> program.Parser:
    """The command line below the program's."""
    parser = protocols.add_parser(
        NAME,
        help=SUMMARY,
        description="Serve virtio devices over vhost-user.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("devices", nargs="+", metavar="DEVICE[,OPTIONS]", help="as behind 'acrn-dm -s SLOT,'")
    program.add_socket_options(parser, several=True)
    parser.add_argument(
        "-c", "--socket-count", type=_count, default=1, metavar="N", help="serve N such devices, at PATH0 to PATHn"
    )
    return parser


def teach(parser: program.Parser, plugins: PluginManager) -> None:
    """Complete the help of *parser* by what people have to know, and the devices there are."""
    lines = ["Devices that can be served here:"]
    for kind in served(plugins):
        text = f"{kind.summary} [{kind.provider}]"
        first, *rest = textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False) or [""]
        lines.append(f"  {', '.join(kind.names):<{INDENT - 3}} {first}")
        lines += [" " * INDENT + line for line in rest]
    lines += [f"  (left out: {fault})" for fault in plugins.faults()]
    parser.epilog = TEACHING + "\n".join(lines)


def run(arguments: argparse.Namespace, plugins: PluginManager, *, prog: str, last: bool) -> int:
    """Do what *arguments* say; returns the exit code. Raises AcrnDmError."""
    texts = arguments.devices * arguments.socket_count
    if arguments.socket_count > 1 and len(arguments.devices) > 1:
        raise ConfigError(
            "for one device only; several have their sockets by themselves", option="--socket-count", usage=True
        )
    if arguments.print_capabilities:
        for text in arguments.devices:
            print(json.dumps({"type": type_name(text, plugins)}))
        return 0
    program.check_user(arguments.user)
    at = places(arguments.socket_path, arguments.fd, len(texts), os.environ)
    log_to_stderr(prog, verbose=arguments.verbose)
    plugins.load_devices(text.partition(",")[0] for text in texts)
    devices = [make_device(text, plugins, program=prog, slot=slot) for slot, text in enumerate(texts)]
    opened = [made.device for made in devices]
    confined = functools.partial(confine_devices, arguments.sandbox, opened, listens=True, user=arguments.user)
    serve(devices, at, dumped=arguments.dump_guest_core == "on", last=last, opened=confined)
    return 0


def _count(text: str) -> int:
    """Raises ArgumentTypeError."""
    try:
        return decimal(text, 1, MAX_COUNT, "number")
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None
