"""Settings from files and from the command line into one ``Command``: what to do, and with which machine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import define, frozen
from acrn_dm.cli.arguments import Setting
from acrn_dm.cli.grammar import Effect
from acrn_dm.cli.values import MANAGER_DIRECTORY, LogSettings, word
from acrn_dm.contract.config import DeviceSpec, MachineConfig, UartSpec
from acrn_dm.contract.types import Bdf

S = TypeVar("S", DeviceSpec, UartSpec)

PLUGIN = "plugin:"  # prefix of the fields of plugins' options
FIELDS = attrs.fields_dict(MachineConfig)


@frozen(kw_only=True)
class Layer:
    """All that one source says: a file, or the command line."""

    settings: Sequence[Setting] = ()
    devices: Sequence[DeviceSpec] = ()
    uarts: Sequence[UartSpec] = ()
    names: Sequence[str] = ()  # the VM's name; more than one is an error
    file: str = ""  # the file's path; empty is the command line


@frozen(kw_only=True)
class Command:
    """A command line, understood. ``warnings`` are lines for the user."""

    config: MachineConfig
    dry_run: bool = False
    json: bool = False
    logging: LogSettings = attrs.field(factory=LogSettings)
    warnings: tuple[str, ...] = ()


@define(eq=False)
class Draft:
    """Values by field (``MachineConfig``'s, ``Command``'s, and ``plugin:NAME``), as layer after layer is put on top."""

    values: dict[str, Any] = attrs.field(factory=dict)
    sources: dict[str, Setting] = attrs.field(factory=dict)  # which setting each value came from
    devices: list[DeviceSpec] = attrs.field(factory=list)
    uarts: list[UartSpec] = attrs.field(factory=list)
    name: str | None = None
    name_from: str = ""  # the file that the name is from
    effects: list[tuple[Setting, Any]] = attrs.field(factory=list)  # settings that only warn or refuse

    def put(self, layer: Layer) -> None:
        """Put *layer* on top. Raises ConfigError."""
        converted = [(s, convert(s)) for s in layer.settings]
        fields = {s.option.field for s, _ in converted}
        if "cpu_affinity" in fields and "vcpus" not in fields:
            self.values.pop("vcpus", None)  # a lower layer's count; the ids say it anew
        for setting, value in converted:
            if setting.option.effect is not Effect.SET:
                self.effects.append((setting, value))
            elif not setting.option.repeat:
                self.values[setting.option.field] = value
                self.sources[setting.option.field] = setting
        added = [v for _, v in converted if isinstance(v, DeviceSpec)]
        self.devices = _overlay(self.devices, [*layer.devices, *added], lambda d: (d.bdf, d.origin))
        ports = [v for _, v in converted if isinstance(v, UartSpec)]
        where = layer.file or "-l"
        self.uarts = _overlay(self.uarts, [*layer.uarts, *ports], lambda u: (f"com{u.number}", where))
        if len(layer.names) > 1:
            text = f"one VM name is expected, there are {len(layer.names)}: {', '.join(map(repr, layer.names))}"
            raise ConfigError(text, usage=True)
        if layer.names:
            self.name, self.name_from = layer.names[0], layer.file


def assemble(layers: Sequence[Layer], plugin_defaults: Mapping[str, Any]) -> Command:
    """Make the command from *layers*, the weakest first. Raises ConfigError."""
    draft = Draft()
    for layer in layers:
        draft.put(layer)
    warnings = tuple(filter(None, (_apply_effect(s, v) for s, v in draft.effects)))
    values = draft.values
    if values.get("json") and not values.get("dry_run"):
        raise ConfigError("only with --dry-run", option="--json", usage=True)
    return Command(
        config=_machine(draft, plugin_defaults),
        dry_run=values.get("dry_run", False),
        json=values.get("json", False),
        logging=values.get("logging", LogSettings()),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def convert(setting: Setting) -> Any:
    """Read the setting's text. Raises ConfigError that names the option and what it allows."""
    if isinstance(setting.value, bool):
        return setting.value
    try:
        value = setting.option.parse(setting.value)
        if setting.option.field in FIELDS and not setting.option.repeat:
            _validate(setting.option.field, value)
    except ValueError as e:
        raise setting.error(str(e), malformed=True) from None
    if isinstance(value, DeviceSpec) and not setting.from_argv:
        return attrs.evolve(value, origin=f"{setting.origin}: {setting.value}")
    return value


def _apply_effect(setting: Setting, value: Any) -> str:
    """The warning for an option that is ignored; for one that is refused, raise ConfigError."""
    option = setting.option
    if value is False:  # a switch that a file turns off
        return ""
    if option.effect is Effect.IGNORE:
        return f"{setting.origin}: ignored: {option.note}"
    try:
        if option.check is not None:
            option.check(value)
    except ValueError as e:
        raise setting.error(str(e)) from None
    raise setting.error(f"not provided: {option.note}")


def _machine(draft: Draft, plugin_defaults: Mapping[str, Any]) -> MachineConfig:
    values = {field: value for field, value in draft.values.items() if field in FIELDS}
    if "cpu_affinity" in values:
        values.setdefault("vcpus", len(values["cpu_affinity"]))
        source = draft.sources["cpu_affinity"]
        if values["vcpus"] != len(values["cpu_affinity"]):
            raise source.error(f"{len(values['cpu_affinity'])} LAPIC ids for {values['vcpus']} CPUs", malformed=True)
        try:
            _validate("vcpus", values["vcpus"])
        except ValueError as e:
            raise source.error(str(e), malformed=True) from None
    if draft.name is None:
        raise ConfigError("the VM's name is missing; give it as the last argument, or see --help", usage=True)
    try:
        _validate("name", word(draft.name))
    except ValueError as e:
        where = f"{draft.name_from}: name" if draft.name_from else None
        raise ConfigError(str(e), option=where, usage=where is None) from None
    values.setdefault("manager_directory", MANAGER_DIRECTORY)
    given = {field.removeprefix(PLUGIN): v for field, v in draft.values.items() if field.startswith(PLUGIN)}
    plugin_options = {**plugin_defaults, **given}
    devices, uarts = tuple(draft.devices), tuple(draft.uarts)
    return MachineConfig(name=draft.name, devices=devices, uarts=uarts, plugin_options=plugin_options, **values)


def _validate(field: str, value: Any) -> None:
    """Run the field's own validator now, while it is known which option the value came from. Raises ValueError."""
    attribute = FIELDS[field]
    if attribute.validator is not None:
        attribute.validator(None, attribute, value)


def _overlay(below: list[S], above: list[S], key: Callable[[S], tuple[object, str]]) -> list[S]:
    """*above* over *below*: of two for one place the upper counts, but one layer may not use a place twice.

    *key* returns the place and where the spec was written.
    """
    places: set[object] = set()
    for spec in above:
        place, where = key(spec)
        if place in places:
            raise ConfigError(f"{'slot ' if isinstance(place, Bdf) else ''}{place} is used twice", option=where)
        places.add(place)
    return [spec for spec in below if key(spec)[0] not in places] + above
