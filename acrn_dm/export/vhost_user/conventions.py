"""The programs of one kind each, as QEMU's conventions for back-ends have them (docs/interop/vhost-user.rst): managers
start them with nothing but the words of their kinds, such as
``acrn-dm-vhost-user-block --socket-path=PATH --blk-file=IMAGE [--read-only]``.

Managers find them by the files in share/qemu/vhost-user, which name them. A kind is here if these words can say
all that its device needs: a network card's interface is none of them.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.export import program
from acrn_dm.export.making import QUEUES, Made, make_resolved
from acrn_dm.export.sockets import places
from acrn_dm.export.vhost_user.serving import log_to_stderr, serve

PREFIX = "acrn-dm-vhost-user-"


@frozen(kw_only=True)
class Word:
    """A word of a kind's command line: the option of our device that it sets, to what follows it or to *value*."""

    option: str
    help: str
    value: object = None


@frozen(kw_only=True)
class Kind:
    """A kind: our device of it, what that always needs, and the words that QEMU's schema has as its features."""

    device: str
    options: Mapping[str, object] = attrs.field(factory=dict)
    words: Mapping[str, Word] = attrs.field(factory=dict)
    required: str = ""


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "block": Kind(
            device="virtio-blk",
            words={
                "blk-file": Word(option="path", help="the image, or block device"),
                "read-only": Word(option="ro", value=True, help="the guest may not write"),
            },
            required="blk-file",
        ),
        "console": Kind(device="virtio-console", options={"ports": ["@stdio:console"]}),
        "input": Kind(
            device="virtio-input",
            words={
                "evdev-path": Word(option="evdev", help="the host's device, /dev/input/eventN"),
                "no-grab": Word(option="grab", value=False, help="leave it to the host as well"),
            },
            required="evdev-path",
        ),
        "rng": Kind(device="virtio-rnd"),
    }
)


def main() -> int:
    """Run ``sys.argv``, whose first word says which of the programs it is, and with which the process ends; returns the
    exit code. Raises nothing.
    """
    prog = Path(sys.argv[0]).name
    return program.run(prog, lambda: _main(prog, prog.removeprefix(PREFIX)))


def _main(prog: str, name: str) -> int:
    if name not in KINDS:
        raise ConfigError(f"expected {', '.join(PREFIX + known for known in KINDS)}", option="name", value=prog)
    kind = KINDS[name]
    if "--print-capabilities" in sys.argv[1:]:  # "Other options and arguments should be ignored"
        print(json.dumps({"type": name, **({"features": sorted(kind.words)} if kind.words else {})}))
        return 0
    arguments = vars(_parser(prog, kind).parse_args())
    chosen = {word.option: arguments[word.option] for word in kind.words.values() if word.option in arguments}
    if kind.required and kind.words[kind.required].option not in chosen:
        raise ConfigError("it is needed", option=f"--{kind.required}", usage=True)
    at = places(arguments["socket_path"][-1:], arguments["fd"][-1:], 1, os.environ)
    log_to_stderr(prog, verbose=arguments["verbose"])
    made = _made(prog, kind.device, {**kind.options, **chosen})
    serve([made], at, dumped=arguments["dump_guest_core"] == "on", last=True)
    return 0


def _made(prog: str, device: str, options: Mapping[str, object]) -> Made:
    plugins = make_plugin_manager()
    plugins.load_devices([device])
    spec = DeviceSpec(bdf=Bdf(slot=0), kind=device, table=options, origin=prog)
    return make_resolved(spec, DeviceContext(bdf=spec.bdf, kind=device, machine=prog, vcpus=QUEUES), plugins)


def _parser(prog: str, kind: Kind) -> program.Parser:
    parser = program.Parser(prog=prog, description=f"Serve a {kind.device} over vhost-user.", allow_abbrev=False)
    program.add_socket_options(parser, several=False)
    for name, word in kind.words.items():
        taken = {"metavar": "PATH"} if word.value is None else {"action": "store_const", "const": word.value}
        parser.add_argument(f"--{name}", dest=word.option, default=argparse.SUPPRESS, help=word.help, **taken)
    return parser
