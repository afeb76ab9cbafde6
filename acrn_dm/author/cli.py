"""``acrn-dm-plugin``: the command line of who writes plugins."""

import argparse
import functools
import importlib.metadata
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from acrn_dm.author import template
from acrn_dm.base.errors import AcrnDmError, ConfigError
from acrn_dm.base.log_text import escaped

if TYPE_CHECKING:
    from acrn_dm.contract.plugins import Offers

PROGRAM = "acrn-dm-plugin"
EXIT_FAILURE, EXIT_INTERNAL, EXIT_USAGE, EXIT_CONFIG = 1, 2, 64, 78

EXAMPLES = """\
examples:
  acrn-dm-plugin new filler --kind pci        a package in ./acrn-dm-filler, with tests that pass
  cd acrn-dm-filler && pip install -e '.[test]' && pytest
  acrn-dm-plugin list                      what is installed, what it offers, what was refused and why
  acrn-dm-plugin check filler                 one line for each finding; exit code 1 if one is wrong
"""


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of leaving with an exit code of its own."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(f"{message}; see {self.prog} --help", usage=True)


def make_parser() -> Parser:
    """The command line."""
    layout = functools.partial(argparse.RawDescriptionHelpFormatter, width=100)
    about = "Begin a plugin of acrn-dm, look at those that are installed, or check one."
    parser = Parser(prog=PROGRAM, description=about, epilog=EXAMPLES, formatter_class=layout, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    kinds = "\n".join(f"  {name:12}{kind.summary}" for name, kind in template.KINDS.items())
    new = commands.add_parser(
        "new", help="begin one: a package with a device, options, tests, README and CI", allow_abbrev=False,
        description="Write a new package. Its tests pass as it stands; its sources say what to replace.",
        epilog=f"kinds:\n{kinds}", formatter_class=layout,
    )  # fmt: skip
    new.add_argument("name", metavar="NAME", help="lower-case letters, digits and '-'; the package is acrn-dm-NAME")
    new.add_argument("--kind", default="virtio", metavar="KIND", help=f"{', '.join(template.KINDS)} [virtio]")
    new.add_argument("--into", type=Path, default=Path(), metavar="DIR", help="where the package's folder is made [.]")
    shown = commands.add_parser("list", help="what is installed, from where, what it offers, what was refused and why")
    shown.add_argument("--json", action="store_true", help="as JSON")
    check = commands.add_parser(
        "check", help="hooks, options and names of one, and its devices against the specifications", allow_abbrev=False
    )
    check.add_argument("package", metavar="PACKAGE", help="a plugin's name, its distribution's, or a module")
    check.add_argument(
        "--options", action="append", default=[], metavar="DEVICE:TEXT",
        help="options with which a device is tried, as behind its name in -s; may be repeated",
    )  # fmt: skip
    check.add_argument("--json", action="store_true", help="as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* (without the program's name; default ``sys.argv[1:]``) and return the exit code."""
    try:
        args = make_parser().parse_args(argv)
        return {"new": _new, "list": _list, "check": _check}[args.command](args)
    except SystemExit:  # --help
        return 0
    except AcrnDmError as e:
        usage = isinstance(e, ConfigError) and e.usage
        return _fail(str(e), EXIT_USAGE if usage else EXIT_CONFIG if isinstance(e, ConfigError) else EXIT_FAILURE)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_FAILURE)
    except BrokenPipeError:  # a reader that has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except Exception as e:
        asked = os.environ.get("ACRN_DM_TRACEBACK") == "1"
        if asked:
            traceback.print_exc()
        hint = "" if asked else "; set ACRN_DM_TRACEBACK=1 to see where"
        return _fail(f"internal error: {type(e).__name__}: {e}{hint}", EXIT_INTERNAL)


def _new(args: argparse.Namespace) -> int:
    plain = template.plain_name(args.name)
    made = template.files(plain, args.kind, _version())
    _refuse_taken(plain, args.kind)
    folder = args.into / f"{template.PREFIX}{plain}"
    template.write(folder, made)
    print("\n".join([f"made {folder}: {template.KINDS[args.kind].summary}", *(f"  {place}" for place in made)]))
    print(f"next: cd {folder} && pip install -e '.[test]' && pytest")
    return 0


def _refuse_taken(name: str, kind: str) -> None:
    """Raise ConfigError where a plugin, or what this kind offers, has the name already."""
    from acrn_dm.contract.plugins import make_plugin_manager  # noqa: PLC0415  # --help does without

    plugins = make_plugin_manager()
    for origin, _ in plugins.loaded:
        if origin.plugin == name:
            raise ConfigError(f"there is a plugin of this name: {origin}", option="new", value=name)
    of_kind: dict[str, Offers[Any]] = {
        "backend": plugins.backends,
        "hypervisor": plugins.hypervisors,
        "block": plugins.block_drivers,
        "packet": plugins.packet_drivers,
    }
    offers = of_kind.get(kind, plugins.devices)
    for claim, claimed in offers.claims.items():
        if claim.partition(" for ")[0] == name:
            text = f"{claimed[0].owner} offers a {offers.what} of this name"
            raise ConfigError(text, option="new", value=name)


def _list(args: argparse.Namespace) -> int:
    from acrn_dm.cli.shown import inventory  # noqa: PLC0415  # --help does without
    from acrn_dm.contract.plugins import make_plugin_manager  # noqa: PLC0415

    plugins = make_plugin_manager()
    print(inventory.plugins_json(plugins) if args.json else inventory.render_plugins(plugins))
    return 0


def _check(args: argparse.Namespace) -> int:
    from acrn_dm.author import check  # noqa: PLC0415  # the testing kit: --help does without

    texts = dict(_device_options(text) for text in args.options)
    findings = []
    for finding in check.check(args.package, texts):
        findings.append(finding)
        if not args.json:
            print(escaped(str(finding)), flush=True)
    if args.json:
        print(json.dumps([{**attrs.asdict(f), "level": f.level.value} for f in findings], indent=2))
    return EXIT_FAILURE if any(f.level is check.Level.WRONG for f in findings) else 0


def _device_options(text: str) -> tuple[str, str]:
    device, colon, options = text.partition(":")
    if not device or not colon:
        raise ConfigError("expected DEVICE:TEXT, as in filler:fill=1", option="--options", value=text, usage=True)
    return device, options


def _version() -> str:
    """The version that a new package asks for: ours."""
    try:
        return importlib.metadata.version("acrn-dm")
    except importlib.metadata.PackageNotFoundError:
        return "0.1"


def _fail(text: str, code: int) -> int:
    print(f"{PROGRAM}: {escaped(' '.join(text.split()))}", file=sys.stderr)
    return code
