"""The resolution of a device as the user wrote it: its type, its options and its place. Opens nothing.

Also knows the names of the original's devices, so that a launch script is told which emulation is missing.
"""

from typing import Any, Never, cast

import attrs

from acrn_dm.backends.helper import Wish
from acrn_dm.backends.helper import take as take_wish
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.process.users import User
from acrn_dm.base.records import frozen
from acrn_dm.contract import options
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.drivers import choice
from acrn_dm.contract.plugins import PluginManager, blame
from acrn_dm.contract.types import Device, DeviceContext, DeviceType
from acrn_dm.virtio.choice import (
    take_io_threads,
    take_option,
    take_poll_us,
    take_role,
    take_strict,
    take_switches,
)

# Emulations of the original device model that are not built in. No distribution is named that would bring them: whoever
# registers such a name first would be installed.
ORIGINAL_DEVICES = frozenset(
    {
        *("ahci", "ahci-cd", "ahci-hd", "dummy", "igd-lpc", "ivshmem", "passthru", "uart", "vhost-vsock"),
        *("virtio-audio", "virtio-gpio", "virtio-gpu", "virtio-heci", "virtio-hyper_dmabuf", "virtio-i2c"),
        *("virtio-input", "virtio-ipu", "virtio-rnd", "virtio-rpmb", "wdt-i6300esb", "xhci"),
    }
)

# The original prints that it ignores these and then exits; they are really ignored here.
OBSOLETE_DEVICES = frozenset({"npk", "pci-gvt", "virtio-coreu", "virtio-hdcp"})


@frozen(kw_only=True)
class ResolvedDevice:
    """A device ready to be made."""

    spec: DeviceSpec
    type: DeviceType
    options: Any  # an instance of ``type.config``
    context: DeviceContext
    strict: bool = False  # strict=on is among the options
    switched: tuple[str, ...] = ()  # switches like queue_reset=off that are among the options
    wish: Wish | None = None  # process=on is among them
    whole: DeviceSpec = attrs.field()  # with all options but those of a process

    @whole.default
    def _as_it_is(self) -> DeviceSpec:
        return self.spec

    def create(self) -> Device:
        """Make it; opens nothing. Raises ConfigError, and whatever a plugin raises."""
        return self.type.create(cast(Never, self.options), self.context)


def without_obsolete(config: MachineConfig, plugins: PluginManager) -> tuple[MachineConfig, tuple[str, ...]]:
    """Take obsolete devices out, unless a plugin provides them; also return one line about each. Raises PluginError."""
    asked = OBSOLETE_DEVICES & {device.kind for device in config.devices}
    if not asked:
        return config, ()
    dropped = asked - plugins.device_types().keys()
    lines = tuple(f"{d.origin}: {d.kind} is obsolete and ignored" for d in config.devices if d.kind in dropped)
    if not lines:
        return config, ()
    return attrs.evolve(config, devices=tuple(d for d in config.devices if d.kind not in dropped)), lines


def resolve_devices(config: MachineConfig, plugins: PluginManager) -> tuple[ResolvedDevice, ...]:
    """Resolve every device of *config*, in order of bus, slot and function. Raises ConfigError, PluginError."""
    specs = sorted(config.devices, key=lambda d: (d.bdf.bus, d.bdf.slot, d.bdf.func))
    return tuple(_resolve(spec, config, plugins) for spec in specs)


def _resolve(spec: DeviceSpec, config: MachineConfig, plugins: PluginManager) -> ResolvedDevice:
    kind = wanted(spec, plugins)
    owner = plugins.provider(kind)
    context = DeviceContext(
        bdf=spec.bdf,
        kind=spec.kind,
        machine=config.name,
        vcpus=config.vcpus,
        windows=config.windows,
        virtio_msi=config.virtio_msi,
        poll_ns=config.virtio_poll_ns,
        plugin_options=config.plugin_options,
        provider="" if owner is None or owner.built_in else str(owner),
    )
    with blame(f"{owner}: {spec.kind}"):  # a plugin's grammar may raise anything
        return _for_user(resolve_one(spec, kind, context, plugins), config.user)


def _for_user(resolved: ResolvedDevice, user: User | None) -> ResolvedDevice:
    """*resolved*, whose process, if it has one of its own, is *user* unless it is to be another."""
    wish = resolved.wish
    if wish is None or wish.user is not None or user is None:
        return resolved
    return attrs.evolve(resolved, wish=attrs.evolve(wish, user=user))


def wanted(spec: DeviceSpec, plugins: PluginManager, listed_by: str = "-s help") -> DeviceType:
    """The kind of device that *spec* asks for. Raises ConfigError where nobody offers it or two do, PluginError where
    the plugin's record was refused. Who asks for one that is not there is told that *listed_by* shows all.
    """
    where = spec.origin or f"-s {spec.bdf},{spec.kind}"
    try:
        kind = plugins.device_type(spec.kind)
    except ConfigError as e:
        raise ConfigError(str(e), option=where) from None
    if kind is None:
        raise _unknown(spec, plugins, listed_by)
    return kind


def resolve_one(spec: DeviceSpec, kind: DeviceType, context: DeviceContext, plugins: PluginManager) -> ResolvedDevice:
    """Read the options of one device by its class's own grammar, or the common one, and who is to move its data.

    *context* is completed by what they say; a driver is one of *plugins*. Raises ConfigError naming the device.
    """
    spec, wish = take_wish(spec, kind.config)
    whole = spec
    spec, context, strict = _take_common(spec, kind.config, context)
    where = spec.origin or f"-s {spec.bdf},{spec.kind}"
    spec, wanted_driver = choice.take(spec, kind, plugins, where)
    chosen = _read(spec, kind, where)
    if wanted_driver is not None:
        place = choice.context_of(context, read_only=bool(getattr(chosen, "ro", False)))
        context = attrs.evolve(context, driver=wanted_driver.make(plugins, place))
    return ResolvedDevice(
        spec=spec,
        type=kind,
        options=chosen,
        context=context,
        strict=strict,
        switched=tuple(context.switches),
        wish=wish,
        whole=whole,
    )


def _take_common(spec: DeviceSpec, config: type, context: DeviceContext) -> tuple[DeviceSpec, DeviceContext, bool]:
    """Return *spec* without the options that all virtio devices have, *context* with them, and whether strict=on is
    among them. Raises ConfigError.
    """
    spec, backend = take_option(spec, config)
    spec, strict = take_strict(spec, config)
    spec, switches = take_switches(spec, config)
    spec, iothread = take_io_threads(spec, config)
    spec, io_poll_us = take_poll_us(spec, config)
    spec, role = take_role(spec, config)
    completed = attrs.evolve(
        context,
        text=_text(spec),
        backend=backend,
        strict=strict or context.strict,
        switches=switches,
        iothread=iothread,
        io_poll_us=io_poll_us,
        **role,
    )
    return spec, completed, strict


def _read(spec: DeviceSpec, kind: DeviceType, where: str) -> Any:
    """An instance of the option class. Raises ConfigError."""
    config: Any = kind.config
    try:
        if spec.table is not None:
            own_mapping = getattr(config, "from_mapping", None)
            return own_mapping(spec.table) if own_mapping else options.from_mapping(config, spec.table, where)
        own_string = getattr(config, "from_string", None)
        return own_string(spec.text) if own_string else options.parse_options(config, spec.text, where)
    except (ConfigError, ValueError, TypeError) as e:
        text = str(e)
        raise ConfigError(text, option=None if text.startswith(where) else where) from e


def _text(spec: DeviceSpec) -> str:
    """The option string; for a TOML table one like it: identifiers are derived from it and have to be stable."""
    if spec.table is None:
        return spec.text
    return ",".join(f"{key}={value}" for key, value in spec.table.items())


def _unknown(spec: DeviceSpec, plugins: PluginManager, listed_by: str) -> ConfigError:
    where = spec.origin or f"-s {spec.bdf},{spec.kind}"
    if spec.kind in OBSOLETE_DEVICES:
        return ConfigError(f"the device {spec.kind!r} is obsolete", option=where)
    if spec.kind in ORIGINAL_DEVICES:
        return ConfigError(f"the original's emulation of {spec.kind!r} is missing: no plugin provides it", option=where)
    hint = options.did_you_mean(spec.kind, {*plugins.device_types(), *ORIGINAL_DEVICES})
    lost = "; ".join(str(fault) for fault in plugins.faults())
    why = f"; it may be one of what was left out: {lost}" if lost else ""
    return ConfigError(f"there is no device {spec.kind!r}; {hint}see '{listed_by}'{why}", option=where)
