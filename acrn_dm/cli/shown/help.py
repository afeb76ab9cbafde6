"""Help texts, made from the tables: the options, the kinds of devices, the options of one device, the hypervisors."""

import re
import textwrap
from collections.abc import Sequence

from acrn_dm.base.errors import ConfigError
from acrn_dm.cli.arguments import Setting
from acrn_dm.cli.grammar import Group, Table
from acrn_dm.cli.shown import inventory
from acrn_dm.contract import options
from acrn_dm.contract.drivers import choice
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.contract.types import BackendType, DeviceType
from acrn_dm.machine.hypervisor import unusable
from acrn_dm.machine.resolve import ORIGINAL_DEVICES
from acrn_dm.virtio.switches import SWITCHES

REPEATED = ", may be repeated"
VALUES = "Values; on the command line a comma in a value is written twice: path=/a,,b is /a,b"

WIDTH = 100
INDENT = 30

_DEVICE_HELP = re.compile(
    r"([A-Za-z][A-Za-z0-9_.-]*)(?:,driver=([^,]+))?,help\Z"
)  # a slot begins with a digit: no "-s 3,…" looks like it

EXAMPLES = """\
Examples
  acrn-dm -k vmlinuz -B console=ttyS0 -s 0:0,hostbridge -s 1:0,lpc -l com1,stdio vm1
  acrn-dm -m 2G --cpus 2 -k vmlinuz -r initrd.img -B "root=/dev/vda console=hvc0" -s 0:0,hostbridge \\
          -s 3,virtio-blk,disk.img -s 4,virtio-net,tap=tap0 -s 5,virtio-console,@stdio:console vm1
  acrn-dm --config vm1.toml --dry-run         what would run, and what is missing on this host
  acrn-dm -s virtio-blk,help                  the options of one device
  acrn-dm -s virtio-blk,driver=file,help      the options of one driver behind it
  acrn-dm --plugins list                      what is installed, what it offers, what was left out and why

A configuration file has the long options' names as keys, and a table for each device:
  name = "vm1"
  memsize = "2G"
  kernel = "vmlinuz"
  [[device]]
  slot = "3"
  type = "virtio-blk"
  options = "disk.img,ro"                     as behind -s; or the device's options as keys
  [[uart]]
  port = "com1"
  backend = "stdio"
"""

EXIT_CODES = """\
Exit codes
  0   the guest powered off
  1   failure at run time: of the host, of a plugin, or a guest that could not go on or was forced off
  2   internal error of acrn-dm; with ACRN_DM_TRACEBACK=1 it shows where
  64  the command line is malformed
  78  what it asks for can't be had: a device, a file, a plugin, a setting"""


def requested_help(settings: Sequence[Setting], table: Table, plugins: PluginManager) -> str | None:
    """The help that *settings* ask for, if any; with ``--json`` as JSON. Raises ConfigError, PluginError."""
    json = any(s.option.name == "json" for s in settings)
    for setting in settings:
        name, value = setting.option.name, setting.value
        if name == "help":
            return render_options(table)
        if name == "plugins" and value == "list":
            return inventory.plugins_json(plugins) if json else inventory.render_plugins(plugins)
        if name == "hypervisor" and value == "help":
            return inventory.hypervisors_json(plugins) if json else render_hypervisors(plugins)
        if name == "pci_slot" and value == "help":
            return inventory.devices_json(plugins) if json else render_devices(plugins)
        if name == "pci_slot" and (match := _DEVICE_HELP.match(value)):
            return _about(match[1], match[2], plugins, json=json)
    return None


def _about(name: str, driver: str | None, plugins: PluginManager, *, json: bool) -> str:
    """The help on one kind of device, or on one *driver* of it. Raises ConfigError, PluginError."""
    kind = _device(name, plugins)
    if driver is None:
        return inventory.device_json(kind, plugins) if json else render_device(name, plugins)
    if kind.drivers is None:
        raise ConfigError("the device has no drivers", option="-s", value=name)
    record = choice.find(plugins, kind.drivers, driver, f"-s {name}")
    return inventory.driver_json(record, plugins) if json else render_driver(name, record, plugins)


def render_options(table: Table) -> str:
    """The whole help, by group."""
    parts = ["Usage: acrn-dm [OPTION]... VM", "Runs one virtual machine, named VM, until it is off."]
    for group in Group:
        chosen = [o for o in table.options if o.group is group]
        if chosen:
            parts.append("\n".join([group.value, *(_entry(o.usage, o.help) for o in chosen)]))
    parts.append("Long options may be shortened as far as they stay unique; options and VM may come in any order.")
    return "\n\n".join([*parts, EXAMPLES.rstrip(), EXIT_CODES])


def render_devices(plugins: PluginManager) -> str:
    """All kinds of devices with who provides them, the backends, then those of the original that nobody provides."""
    types = plugins.device_types()
    names: dict[int, list[str]] = {}
    for name, kind in types.items():
        names.setdefault(id(kind), []).append(name)
    kinds: dict[int, DeviceType] = {id(kind): kind for kind in types.values()}
    rows = sorted((", ".join(names[key]), kind.summary, str(plugins.provider(kind))) for key, kind in kinds.items())
    lines = ["Devices for -s SLOT,DEVICE[,OPTIONS]; '-s DEVICE,help' shows the options of one"]
    lines += [_entry(name, f"{summary} [{provider}]") for name, summary, provider in rows]
    lines += [_entry(name, plugins.devices.contest(name)) for name in sorted(plugins.devices.contested())]
    lines += _backends(plugins)
    lines += _drivers("Block drivers; 'driver=NAME' among a disk's options executes its requests", plugins, "block")
    lines += _drivers("Packet drivers; 'driver=NAME' among a card's options carries its frames", plugins, "packet")
    absent = sorted(ORIGINAL_DEVICES - types.keys())
    if absent:
        lines += [
            "",
            "Emulations of the original that are missing: no plugin provides them",
            *(f"  {a}" for a in absent),
        ]
    return "\n".join(lines)


def _backends(plugins: PluginManager) -> list[str]:
    """The ways to move a virtio device's data, and how to choose one."""
    heading = "Backends; 'backend=NAME' among the options of a virtio device chooses who moves its data"
    offered = [(offer.record, offer.owner) for offer in plugins.backends.accepted]
    rows = sorted((t.name, f"{t.summary}; for {_kinds(t)} [{owner}]") for t, owner in offered)
    strict = "'strict=on' there checks the device's driver against the specification, and logs what it breaks"
    switches = f"'NAME=on|off' there switches a feature of its queues: {', '.join(sorted(SWITCHES))}"
    threads = "'iothread[=N[@CPUS]]' there gives it a thread of its own, disks and cards N; "
    threads += "'poll_us=N' has that look before it sleeps"
    role = "'server=on' beside a vhost-user socket has the process connect to us; 'wait=on|off|SECONDS': who is late; "
    role += "'relay=on' beside a disk's: the requests of a process that takes no notes of them pass through this one"
    apart = "'process=on' there runs it in a process of its own; 'restart=never|on-failure[:N]': what follows its end"
    lines = ["", strict, switches, threads, role, apart]
    return ["", heading, *(_entry(name, text) for name, text in rows), *lines] if rows else []


def _drivers(heading: str, plugins: PluginManager, sort: str) -> list[str]:
    """What can stand behind a device by ``driver=NAME``."""
    offered = choice.offers(plugins, sort)
    rows = sorted((o.record.name, f"{o.record.summary} [{o.owner}]") for o in offered.accepted)
    contests = [_entry(name, offered.contest(name)) for name in sorted(offered.contested())]
    return ["", heading, *(_entry(name, text) for name, text in rows), *contests] if rows else []


def _kinds(backend_type: BackendType) -> str:
    return "all" if "*" in backend_type.kinds else ", ".join(sorted(backend_type.kinds))


def _device(name: str, plugins: PluginManager) -> DeviceType:
    """The kind of device *name*. Raises ConfigError, PluginError."""
    try:
        kind = plugins.device_type(name)
    except ConfigError as e:
        raise ConfigError(str(e), option="-s", value=name) from None
    if kind is None:
        hint = options.did_you_mean(name, plugins.device_types())
        raise ConfigError(f"no plugin provides this device; {hint}see '-s help'", option="-s", value=name)
    return kind


def render_device(name: str, plugins: PluginManager) -> str:
    """The options of one kind of device. Raises ConfigError for an unknown name."""
    kind = _device(name, plugins)
    parts = _described(kind, f"-s SLOT,{name}", plugins)
    if kind.drivers is not None:
        heading = f"Drivers; '-s {name},driver=NAME,help' shows the options of one"
        parts.append("\n".join(_drivers(heading, plugins, kind.drivers)[1:]))
    return "\n\n".join(parts)


def render_driver(device: str, record: choice.DriverType, plugins: PluginManager) -> str:
    """The options of one driver behind *device*."""
    parts = _described(record, f"-s SLOT,{device},driver={record.name}", plugins)
    kept = choice.keeps(_device(device, plugins)) - {choice.KEY}
    return "\n\n".join([*parts, _entry("Of the device", ", ".join(sorted(kept)))])


def _described(kind: DeviceType | choice.DriverType, what: str, plugins: PluginManager) -> list[str]:
    lines = options.describe(kind.config)
    common = "OPTION[=VALUE]..." if lines else ""
    grammar = str(getattr(kind.config, "GRAMMAR", common))
    usage = what + (f",{grammar}" if grammar else "")
    parts = [f"{kind.summary} [{plugins.provider(kind)}]", f"Usage: {usage}"]
    entries = [_entry(_option_usage(o), f"{o.text} [{o.default}]") for o in lines]
    heading = "Options; in a configuration file they are keys"
    parts.append("\n".join([heading, *entries]) if entries else "It has no options.")
    if entries:
        parts.append("\n".join([VALUES, *_values(lines)]))
    return parts


def _values(lines: Sequence[options.OptionHelp]) -> list[str]:
    """What the words for values mean that stand in *lines*."""
    meant = {line.metavar.removesuffix(REPEATED): line.values for line in lines if line.values}
    return [_entry(word, text) for word, text in meant.items()]


def render_hypervisors(plugins: PluginManager) -> str:
    """All hypervisors, and for each whether it can be used on this host."""
    types = plugins.hypervisor_types()
    lines = ["Hypervisors for --hypervisor NAME; 'auto' takes the first that is usable and not marked 'by name only'"]
    for kind in sorted(types.values(), key=lambda t: (-t.rank, t.name)):
        marks = [kind.summary, unusable(kind, plugins) or "usable here"] + (["by name only"] if kind.rank < 0 else [])
        lines.append(_entry(kind.name, "; ".join(marks)))
    return "\n".join(lines)


def _option_usage(line: options.OptionHelp) -> str:
    return line.name if line.metavar == "on|off" else f"{line.name}={line.metavar}"


def _entry(left: str, text: str) -> str:
    """Two columns; a long left one has a line of its own."""
    wrapped: Sequence[str] = textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False) or [""]
    pad = " " * INDENT
    head = f"  {left}"
    if len(head) < INDENT - 1:
        return "\n".join([head.ljust(INDENT) + wrapped[0], *(pad + line for line in wrapped[1:])]).rstrip()
    return "\n".join([head, *(pad + line for line in wrapped)])
