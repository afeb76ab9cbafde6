"""``main``: understand the command line, load plugins, build the machine, then show, check or run it."""

import contextlib
import importlib.metadata
import logging
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from acrn_dm.base.errors import AcrnDmError, ConfigError, HostError, PluginError
from acrn_dm.base.files.descriptors import raise_limit
from acrn_dm.base.log_text import escaped
from acrn_dm.base.process import privileges
from acrn_dm.base.process.stderr import say
from acrn_dm.cli import help as help_texts
from acrn_dm.cli import toml
from acrn_dm.cli.arguments import Setting, parse_arguments, understood
from acrn_dm.cli.grammar import Table
from acrn_dm.cli.inventory import LIST
from acrn_dm.cli.logs import logging_to
from acrn_dm.cli.option_table import OPTIONS
from acrn_dm.cli.parse import Command, Layer, assemble, convert
from acrn_dm.cli.plugin_options import OptionParser
from acrn_dm.cli.values import names
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.plugins.selection import NO, Selection
from acrn_dm.devices.terminal.signals import signals_to
from acrn_dm.machine.resolve import without_obsolete

if TYPE_CHECKING:
    from acrn_dm.machine.report import MachineReport

log = logging.getLogger(__name__)

EXIT_OFF = 0
EXIT_FAILURE = 1
EXIT_INTERNAL = 2
EXIT_USAGE = 64  # sysexits.h
EXIT_CONFIG = 78

# A thread that wants the interpreter while another computes waits this long; the default of 5 ms would be the latency
# of every access that a vCPU thread has to hand to Python.
SWITCH_INTERVAL_S = 0.0005

PLUGINS_VARIABLE = "ACRN_DM_PLUGINS"  # as --plugins, where neither that nor --no-plugins is given


class Machine(Protocol):
    """A machine, as far as the command line needs it: ``machine.machine.Machine``."""

    @property
    def detail(self) -> str: ...
    def describe(self) -> "MachineReport": ...
    def check(self) -> list[str]: ...
    def realize(self) -> None: ...
    def run(self) -> Any: ...
    def close(self) -> None: ...
    def press_power_button(self) -> None: ...
    def window_changed(self) -> None: ...


MakeManager = Callable[..., PluginManager]
Build = Callable[[MachineConfig, PluginManager], Machine]


def build_machine(config: MachineConfig, plugins: PluginManager) -> Machine:
    """``machine.build.build``, imported when a machine is wanted: help does without boot loaders and chips."""
    from acrn_dm.machine.build import build  # noqa: PLC0415

    return build(config, plugins)


def main(
    argv: Sequence[str] | None = None, *, make_manager: MakeManager = make_plugin_manager, build: Build = build_machine
) -> int:
    """Run the command line *argv* (without the program's name; default ``sys.argv[1:]``) and return the exit code.

    *make_manager* and *build* are for embedding: where plugins come from and what makes the machine. Without *argv* its
    process ends with it, so that signals which ask for that are not given back. Raises nothing.
    """
    privileges.no_new_privileges()
    args = list(sys.argv[1:] if argv is None else argv)
    _fill_standard_files()
    try:
        return _main(args, make_manager, build, last=argv is None)
    except AcrnDmError as e:
        if not isinstance(e, ConfigError):
            _traceback_if_asked()
        return _fail(e)
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_FAILURE
    except Exception as e:
        hint = "" if _traceback_if_asked() else "; set ACRN_DM_TRACEBACK=1 to see where"
        _complain(f"internal error: {type(e).__name__}: {e}{hint}")
        return EXIT_INTERNAL


def _fill_standard_files() -> None:
    """Put /dev/null where our caller closed stdin, stdout or stderr: a disk image might be opened under the number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is fd


def _main(args: list[str], make_manager: MakeManager, build: Build, *, last: bool) -> int:
    core = Table(OPTIONS)
    early = understood(args, core)
    if wants_version(early):
        _show(version_line())
        return EXIT_OFF
    documents = [toml.read(convert(s)) for s in early if s.option.name == "config"]
    plugins = make_manager(**plugin_choice(early, documents, core))
    parser = OptionParser(OPTIONS)
    plugins.add_options(parser)
    told = _warn(plugins.problems)
    table = parser.table()
    text = help_texts.requested_help(understood(args, table), table, plugins)
    if text is not None:
        _show(text)
        return EXIT_OFF
    settings, names = parse_arguments(args, table)
    layers = [*(toml.layer(d, table) for d in documents), Layer(settings=settings, names=names)]
    command = assemble(layers, parser.defaults)
    config, dropped = without_obsolete(command.config, plugins)
    _warn(plugins.faults()[told:])
    for warning in (*command.warnings, *dropped):
        _complain(f"warning: {warning}")
    return _carry_out(command, config, plugins, build, last=last)


def _warn(problems: Sequence[PluginError]) -> int:
    """Say what of the plugins was left out; returns how much."""
    for problem in problems:
        _complain(f"warning: not loaded: {problem}")
    return len(problems)


def wants_version(settings: Sequence[Setting]) -> bool:
    """Whether ``--version`` is given; of it and ``--help`` the first counts."""
    return next((s.option.name for s in settings if s.option.name in ("version", "help")), "") == "version"


def plugin_choice(settings: Sequence[Setting], documents: Sequence[toml.Document], table: Table) -> dict[str, Any]:
    """Arguments of ``make_plugin_manager``; the command line overrides files, a later file an earlier one, and all of
    them what ``ACRN_DM_PLUGINS`` says, where names of plugins that are not installed are no error.
    """
    keys = frozenset({"plugins", "no_plugins"})
    layers = [toml.settings(d, table, keys) for d in documents]
    layers.append([s for s in settings if s.option.field in keys])
    chosen = next((layer for layer in reversed(layers) if layer), [])
    values = {s.option.field: convert(s) for s in chosen}
    if values.get("no_plugins"):
        if "plugins" in values:
            raise ConfigError("not together with --plugins", option=chosen[0].origin, usage=chosen[0].from_argv)
        return {"entry_points": False}
    words = values.get("plugins")
    if words == LIST:
        words = None  # what the next start would load
    if words is None and os.environ.get(PLUGINS_VARIABLE):
        found = names(os.environ[PLUGINS_VARIABLE])
        return {"selection": Selection.from_words(found, strict=False, origin=PLUGINS_VARIABLE)}
    if words is None or not any(word.startswith(NO) for word in words):
        return {"only": words}
    return {"selection": Selection.from_words(words, origin=chosen[0].origin)}


def _refuse_without_guests(config: MachineConfig, plugins: PluginManager) -> None:
    """Raise ConfigError for a hypervisor in which nothing would ever happen; ``auto`` takes none of that kind."""
    kind = plugins.hypervisor_types().get(config.hypervisor)
    if kind is not None and not kind.runs_guests:
        text = f"no guest runs in it ({kind.summary}); it is for --dry-run and for tests"
        raise ConfigError(text, option="--hypervisor", value=config.hypervisor)


def _carry_out(command: Command, config: MachineConfig, plugins: PluginManager, build: Build, *, last: bool) -> int:
    name = None if command.dry_run else config.name
    with logging_to(command.logging, name), contextlib.ExitStack() as stack:
        machine = build(config, plugins)
        if not command.dry_run:  # until the machine is closed: a signal more must not end that half-way
            stack.enter_context(signals_to(machine.press_power_button, machine.window_changed, last=last))
        stack.enter_context(_closing(machine))
        missing = machine.check()
        if command.dry_run:
            _show(_report(machine.describe(), missing, json=command.json))
        for line in missing:
            _complain(line)
        if missing:
            return EXIT_CONFIG
        if command.dry_run:
            return EXIT_OFF
        _refuse_without_guests(config, plugins)
        return _run(machine)


def _report(shown: "MachineReport", missing: Sequence[str], *, json: bool) -> str:
    """What ``--dry-run`` prints; imported when it is wanted, as ``build`` is."""
    from acrn_dm.cli import report  # noqa: PLC0415

    return report.render_json(shown, missing) if json else report.render_tables(shown)


@contextlib.contextmanager
def _closing(machine: Machine) -> Iterator[Machine]:
    """Close *machine* at the end. An error then is logged where another one is on its way: that one is told."""
    try:
        yield machine
    except BaseException:
        try:
            machine.close()
        except AcrnDmError as e:
            log.error("closing: %s", e)
        raise
    machine.close()


def _run(machine: Machine) -> int:
    """Run *machine* until it is off. Raises AcrnDmError when it did not end well."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    raise_limit()
    try:
        machine.realize()
        reason = machine.run()
    finally:
        sys.setswitchinterval(interval)
    if reason.value == "error":
        raise AcrnDmError(f"the guest can't go on: {machine.detail}")
    if reason.value == "forced off":
        raise AcrnDmError(f"the guest was forced off: {machine.detail}")
    return EXIT_OFF


def version_line() -> str:
    """One line: our version, Python's, and the machine's architecture."""
    try:
        version = importlib.metadata.version("acrn-dm")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    return f"DM: acrn-dm {version}, Python {platform.python_version()}, {platform.machine()}"


def _fail(error: AcrnDmError) -> int:
    _complain(str(error))
    if isinstance(error, ConfigError):
        return EXIT_USAGE if error.usage else EXIT_CONFIG
    return EXIT_FAILURE


def _traceback_if_asked() -> bool:
    """Print the current exception's traceback when the environment asks for it."""
    asked = os.environ.get("ACRN_DM_TRACEBACK") == "1"
    if asked:
        traceback.print_exc()
    return asked


def _complain(text: str) -> None:
    """One line on stderr, whatever is in *text*."""
    say(f"acrn-dm: {escaped(' '.join(text.split()))}")


def _show(text: str) -> None:
    """Write *text* to stdout. Raises HostError; a reader that went away (``| head``) has seen enough."""
    try:
        print(_encodable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        _discard_stdout()
    except OSError as e:
        _discard_stdout()
        raise HostError.from_os("writing to stdout", e) from e


def _encodable(text: str, stream: TextIO) -> str:
    """*text* with what *stream* can't encode (a file name that is no UTF-8, say) as escapes."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _discard_stdout() -> None:
    """Keep the interpreter from failing again when it flushes stdout at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
