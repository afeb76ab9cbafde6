"""The choice of the backend that moves a device's data: the one of the device's placement, or the user's by
``backend=NAME``.

The option stands among the device's own, on the command line and in TOML, whatever their grammar is. A kind whose
option class has a field ``backend`` keeps that for itself.
"""

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import attrs

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.io_threads import IoThreads, io_threads, poll_us
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.option_text import split_raw, unquoted
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import BackendType, DeviceContext
from acrn_dm.virtio.backend import Backend
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.placement import VHOST_USER, Placement
from acrn_dm.virtio.switches import SWITCHES

log = logging.getLogger(__name__)

KEY = "backend"
STRICT_KEY = "strict"
IOTHREAD_KEY = "iothread"
POLL_KEY = "poll_us"
SERVER_KEY, WAIT_KEY = "server", "wait"
RELAY_KEY = "relay"
MAX_WAIT_S = 86_400

T = TypeVar("T")

BackendFactory = Callable[[VirtioDevice], object]


def take_option(spec: DeviceSpec, config: type) -> tuple[DeviceSpec, str | None]:
    """Return *spec* without ``backend=NAME``, and NAME; *config* is the option class. Raises ConfigError."""
    rest, name = take_value(spec, config, KEY)
    if rest is spec:
        return spec, None
    if not isinstance(name, str) or not name:
        raise ConfigError("expected the name of a backend", option=f"{_where(spec)} {KEY}", value=name or None)
    return rest, name


def take_strict(spec: DeviceSpec, config: type) -> tuple[DeviceSpec, bool]:
    """Return *spec* without ``strict=on|off``, and whether the driver is to be checked. Raises ConfigError."""
    rest, value = take_value(spec, config, STRICT_KEY)
    if rest is spec:
        return spec, False
    return rest, _on(value, f"{_where(spec)} {STRICT_KEY}")


def take_switches(spec: DeviceSpec, config: type) -> tuple[DeviceSpec, Mapping[str, bool]]:
    """Return *spec* without options like ``queue_reset=off``, and what they say. Raises ConfigError."""
    chosen = {}
    for key in SWITCHES:
        rest, value = take_value(spec, config, key)
        if rest is not spec:
            spec, chosen[key] = rest, _on(value, f"{_where(spec)} {key}")
    return spec, chosen


def _on(value: object, option: str) -> bool:
    if value not in ("on", "off", True, False):
        raise ConfigError("expected on or off", option=option, value=value)
    return value in ("on", True)


def take_io_threads(spec: DeviceSpec, config: type) -> tuple[DeviceSpec, IoThreads]:
    """Return *spec* without ``iothread[=N[@CPUS]]``, and the threads. Raises ConfigError."""
    alone = spec.table is None and IOTHREAD_KEY in split_raw(spec.text)
    if alone:  # a word without a value, as for the disks of the original
        text = ",".join(f"{IOTHREAD_KEY}=1" if raw == IOTHREAD_KEY else raw for raw in split_raw(spec.text))
    rest, value = take_value(attrs.evolve(spec, text=text) if alone else spec, config, IOTHREAD_KEY)
    if value is None:
        return spec, IoThreads()
    return rest, _read(io_threads, value, f"{_where(spec)} {IOTHREAD_KEY}")


def take_poll_us(spec: DeviceSpec, config: type) -> tuple[DeviceSpec, int]:
    """Return *spec* without ``poll_us=N``, and N. Raises ConfigError."""
    rest, value = take_value(spec, config, POLL_KEY)
    return (spec, 0) if rest is spec else (rest, _read(poll_us, value, f"{_where(spec)} {POLL_KEY}"))


def take_role(spec: DeviceSpec, config: type) -> tuple[DeviceSpec, dict[str, Any]]:
    """Return *spec* without ``server=on|off``, ``wait=on|off|SECONDS`` and ``relay=on|off``, and what they say, as
    fields of ``DeviceContext``: whether the process at the device's socket connects to us, how long the start waits for
    it, None where nothing is said, and whether its requests pass through this process where it takes no notes of them.
    Raises ConfigError.
    """
    where = _where(spec)
    spec, server = take_value(spec, config, SERVER_KEY)
    spec, wait = take_value(spec, config, WAIT_KEY)
    serves_it = server is not None and _on(server, f"{where} {SERVER_KEY}")
    seconds = None if wait is None else _seconds(wait, f"{where} {WAIT_KEY}")
    if serves_it and seconds == 0:
        text = "with server=on it has to be waited for: what the guest is offered is the process's to say"
        raise ConfigError(text, option=f"{where} {WAIT_KEY}", value=wait)
    spec, relay = take_value(spec, config, RELAY_KEY)
    relayed = relay is not None and _on(relay, f"{where} {RELAY_KEY}")
    return spec, {"vhost_server": serves_it, "vhost_wait": seconds, "vhost_relay": relayed}


def _seconds(value: object, option: str) -> float:
    if isinstance(value, bool) or value in ("on", "off"):  # TOML's 1 is a second
        return math.inf if value in ("on", True) else 0.0
    if not re.fullmatch("[1-9][0-9]{0,4}", str(value)) or int(str(value)) > MAX_WAIT_S:
        raise ConfigError(f"expected on, off or 1 to {MAX_WAIT_S} seconds", option=option, value=value)
    return float(str(value))


def role_problem(placement: Placement | None, context: DeviceContext) -> str | None:
    """Why ``server=``, ``wait=`` and ``relay=on`` mean nothing for a device of that placement, where one is given."""
    if context.vhost_relay and (placement is None or placement.path is None or placement.backend != VHOST_USER):
        return f"{RELAY_KEY}= is for devices at the socket of a vhost-user process"
    given = SERVER_KEY if context.vhost_server else WAIT_KEY if context.vhost_wait is not None else None
    if given is None or (placement is not None and placement.path is not None):
        return None
    return f"{given}= is for devices at the socket of a vhost-user or vfio-user process"


def _read(read: Callable[[object], T], value: object, where: str) -> T:
    try:
        return read(value)
    except ValueError as e:
        raise ConfigError(str(e), option=where) from e


def take_value(spec: DeviceSpec, config: type, key: str) -> tuple[DeviceSpec, object]:
    """Return *spec* without the option *key*, and its value; *spec* itself without one, or where it is the device's.

    Raises ConfigError for one that is given twice.
    """
    if attrs.has(config) and any(field.name == key for field in attrs.fields(config)):
        return spec, None
    if spec.table is not None:
        values: list[object] = [value for name, value in spec.table.items() if name == key]
        rest = attrs.evolve(spec, table={name: value for name, value in spec.table.items() if name != key} or None)
    else:
        tokens = split_raw(spec.text)  # what is left has to stay as it was written: identifiers are derived from it
        values = [unquoted(token.removeprefix(f"{key}=")) for token in tokens if token.startswith(f"{key}=")]
        rest = attrs.evolve(spec, text=",".join(token for token in tokens if not token.startswith(f"{key}=")))
    if len(values) > 1:
        raise ConfigError(f"option {key!r} is given twice", option=_where(spec))
    return (rest, values[0]) if values else (spec, None)


def _where(spec: DeviceSpec) -> str:
    return spec.origin or f"-s {spec.bdf},{spec.kind}"


def chosen(own: Placement, context: DeviceContext) -> Placement:
    """The placement *own* of the device at *context*, with another backend where the user named one; then there is no
    other to fall back on. Raises ConfigError where the device's own options lead to another backend's socket.
    """
    if context.vhost_server:
        own = attrs.evolve(own, text=f"{own.text}, server")
    name = context.backend
    if name is None:
        return own
    if own.path is not None and name != own.backend:
        raise ConfigError(
            f"{own.path} is the socket of the backend {own.backend}", option=context.name, value=f"{KEY}={name}"
        )
    text = own.text if name == own.backend else f"{own.text} ({name})"
    return Placement(backend=name, path=own.path, text=name if own.text == own.backend else text)


def serves(backend_type: BackendType, kind: str) -> bool:
    """Whether a backend of this type says that it can move the data of devices named *kind*."""
    return "*" in backend_type.kinds or kind in backend_type.kinds


def choose(context: DeviceContext, types: Sequence[BackendType], name: str) -> BackendType:
    """Return the backend type *name* for the device at *context*. Raises ConfigError naming those there are."""
    fitting = [t for t in types if serves(t, context.kind)]
    for backend_type in fitting:
        if backend_type.name == name:
            return backend_type
    why = "does not serve this device" if any(t.name == name for t in types) else "no such backend"
    known = ", ".join(sorted(t.name for t in fitting)) or "none"
    raise ConfigError(f"{why}; there are: {known}", option=context.name, value=name)


def make(backend_type: BackendType, device: VirtioDevice) -> Backend:
    """Make the backend of *device*. Raises ConfigError where the plugin makes something else."""
    made = cast(BackendFactory, backend_type.create)(device)
    if not isinstance(made, Backend):
        text = f"the backend {backend_type.name!r} made a {type(made).__name__}, which is none"
        raise ConfigError(text, option=device.name)
    return made


def realize(backend: Backend, fallback: BackendType | None, resources: Resources) -> Backend:
    """Realize *backend* and return it; where the host refuses it, one of type *fallback* instead, which the log says.

    Raises HostError.
    """
    try:
        backend.realize(resources)
    except HostError as e:
        backend.close()
        if fallback is None:
            raise
        log.warning("%s: %s; falling back to the %s backend", backend.device.name, e, fallback.name)
        backend = make(fallback, backend.device)
        backend.realize(resources)
    return backend


def unchosen(plugins: PluginManager, served: Iterable[tuple[DeviceContext, BackendType]]) -> list[str]:
    """One line for each backend of a plugin that serves a kind of device in this machine and was chosen by none:
    whoever installed it may wonder. *served* are the devices, each with its backend. Raises PluginError.

    The built-in backends are for those who ask for them, and nobody is told.
    """
    devices = list(served)
    used = {(plugins.provider(backend_type), backend_type.name) for _, backend_type in devices}
    types = plugins.backend_types()
    lines = []
    for t in types:
        owner = plugins.provider(t)
        fitting = [context for context, _ in devices if serves(t, context.kind)]
        if owner is None or owner.built_in or not fitting or (owner, t.name) in used:
            continue
        first = choose(fitting[0], types, t.name)
        way = f"backend={t.name} chooses it" if first is t else f"{plugins.provider(first)} has the name, too"
        lines.append(f"the backend {t.name} of {owner} serves {fitting[0].name} and moves no data here; {way}")
    return lines
