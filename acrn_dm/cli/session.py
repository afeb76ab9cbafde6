"""A session of the command line: understand it, load plugins, build the machine, then show, check or run it."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from acrn_dm.base.errors import AcrnDmError, ConfigError, PluginError
from acrn_dm.base.files.descriptors import raise_limit
from acrn_dm.cli import toml
from acrn_dm.cli.arguments import Setting, parse_arguments, understood
from acrn_dm.cli.grammar import Table
from acrn_dm.cli.logs import logging_to
from acrn_dm.cli.option_table import OPTIONS
from acrn_dm.cli.output import complain, show
from acrn_dm.cli.parse import Command, Layer, assemble, convert
from acrn_dm.cli.plugin_options import OptionParser
from acrn_dm.cli.values import names
from acrn_dm.cli.version import version_line
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.plugins.selection import NO, Selection
from acrn_dm.devices.terminal.signals import signals_to
from acrn_dm.machine.resolve import without_obsolete

if TYPE_CHECKING:
    from acrn_dm.machine.report import MachineReport

log = logging.getLogger(__name__)

# A thread that wants the interpreter while another computes waits this long; the default of 5 ms would be the latency
# of every access that a vCPU thread has to hand to Python.
SWITCH_INTERVAL_S = 0.0005

LIST = ("list",)  # the word behind --plugins that asks for what there is
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


def run(
    args: list[str], *, make_manager: MakeManager | None, build: Build | None, settle: Callable[[], None], last: bool
) -> bool:
    """Do what the command line *args* asks for, and return whether all that it needs was there; what is missing has
    been said. *settle* is called when the machine is about to run. Raises AcrnDmError; the others are as of ``main``.
    """
    core = Table(OPTIONS)
    early = understood(args, core)
    if wants_version(early):
        show(version_line())
        return True
    documents = [toml.read(convert(s)) for s in early if s.option.name == "config"]
    plugins = (make_manager or make_plugin_manager)(**plugin_choice(early, documents, core))
    parser = OptionParser(OPTIONS)
    plugins.add_options(parser)
    table = parser.table()
    text = _help(understood(args, table), table, plugins)
    told = _warn(plugins.problems)
    if text is not None:
        show(text)
        return True
    settings, names = parse_arguments(args, table)
    layers = [*(toml.layer(d, table) for d in documents), Layer(settings=settings, names=names)]
    command = assemble(layers, parser.defaults)
    config, dropped = without_obsolete(command.config, plugins)
    plugins.load_devices(device.kind for device in config.devices)
    _warn(plugins.faults()[told:])
    for warning in (*command.warnings, *dropped):
        complain(f"warning: {warning}")
    return _carry_out(command, config, plugins, build or _build, settle, last=last)


def _build(config: MachineConfig, plugins: PluginManager) -> Machine:
    """``machine.build.build``, imported when a machine is wanted: help does without boot loaders and chips."""
    from acrn_dm.machine.build import build  # noqa: PLC0415

    return build(config, plugins)


def _help(settings: Sequence[Setting], table: Table, plugins: PluginManager) -> str | None:
    """The help that *settings* ask for, if any; imported when it is wanted, as ``build`` is."""
    if not any(s.option.name == "help" or str(s.value).endswith(("help", *LIST)) for s in settings):
        return None
    from acrn_dm.cli.shown import help as texts  # noqa: PLC0415

    return texts.requested_help(settings, table, plugins)


def _warn(problems: Sequence[PluginError]) -> int:
    """Say what of the plugins was left out; returns how much."""
    for problem in problems:
        complain(f"warning: not loaded: {problem}")
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


def _carry_out(
    command: Command,
    config: MachineConfig,
    plugins: PluginManager,
    build: Build,
    settle: Callable[[], None],
    *,
    last: bool,
) -> bool:
    if config.gives_up_rights and command.logging.disk is not None:
        text = "its files are rotated, which a process without the rights for it could not do; take kmsg"
        raise ConfigError(text, option="--logger_setting", value="disk")
    name = None if command.dry_run else config.name
    with logging_to(command.logging, name), contextlib.ExitStack() as stack:
        machine = build(config, plugins)
        if not command.dry_run:  # until the machine is closed: a signal more must not end that half-way
            stack.enter_context(signals_to(machine.press_power_button, machine.window_changed, last=last))
        stack.enter_context(_closing(machine))
        missing = machine.check()
        if command.dry_run:
            show(_report(machine.describe(), missing, json=command.json))
        for line in missing:
            complain(line)
        if not missing and not command.dry_run:
            _refuse_without_guests(config, plugins)
            _run(machine, settle)
        return not missing


def _report(shown: "MachineReport", missing: Sequence[str], *, json: bool) -> str:
    """What ``--dry-run`` prints; imported when it is wanted, as ``build`` is."""
    from acrn_dm.cli.shown import report  # noqa: PLC0415

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


def _run(machine: Machine, settle: Callable[[], None]) -> None:
    """Run *machine* until it is off. Raises AcrnDmError when it did not end well."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    raise_limit()
    try:
        machine.realize()
        settle()
        reason = machine.run()
    finally:
        sys.setswitchinterval(interval)
    if reason.value == "error":
        raise AcrnDmError(f"the guest can't go on: {machine.detail}")
    if reason.value == "forced off":
        raise AcrnDmError(f"the guest was forced off: {machine.detail}")
