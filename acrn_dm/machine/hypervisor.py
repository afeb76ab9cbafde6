"""The hypervisor of one machine: which it is, what it is to make, and what of the configuration it can't have."""

import logging

from acrn_dm.base.errors import ConfigError, PluginError
from acrn_dm.base.records import frozen
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.options import did_you_mean
from acrn_dm.contract.plugins import PluginManager, blame
from acrn_dm.contract.types import HypervisorOptions, HypervisorType

log = logging.getLogger(__name__)

MAKES_ANOTHER_GUEST = frozenset({"enable_trusty"})  # the others change how fast it runs


@frozen(kw_only=True)
class ChosenHypervisor:
    """A hypervisor, found before anything is open; *problem* is why it can't be opened here."""

    type: HypervisorType | None
    problem: str | None = None

    @property
    def resumes(self) -> bool:
        """Whether vCPUs that were paused can go on."""
        return self.type is not None and self.type.resumes

    def open(self, config: MachineConfig, plugins: PluginManager) -> Hypervisor:
        """Make the virtual machine. Raises ConfigError, HostError, PluginError."""
        if self.problem is not None or self.type is None:
            raise ConfigError(self.problem or "no hypervisor")
        with blame(f"{plugins.provider(self.type)}: {self.type.name}"):
            return self.type.open(hypervisor_options(config, self.type))


def find_hypervisor(config: MachineConfig, plugins: PluginManager) -> ChosenHypervisor:
    """Find the hypervisor, and why it can't be opened here. Warns of options that it ignores.

    Raises ConfigError when one is asked for by a name that nobody offers.
    """
    try:
        hypervisor = choose_hypervisor(config, plugins)
    except ConfigError as e:
        if config.hypervisor != "auto":
            raise
        return ChosenHypervisor(type=None, problem=str(e))
    reason = None if config.allow_slow else probe(hypervisor, plugins)
    ignored, refused = unprovided(config, hypervisor)
    for line in ignored:
        log.warning("%s", line)
    problem = None if reason is None else f"--hypervisor: {config.hypervisor!r}: {reason}"
    return ChosenHypervisor(type=hypervisor, problem=problem or next(iter(refused), None))


def choose_hypervisor(config: MachineConfig, plugins: PluginManager) -> HypervisorType:
    """Return the hypervisor asked for, or for ``auto`` the usable one of highest rank. Raises ConfigError with the
    reasons.
    """
    types = plugins.hypervisor_types()
    if config.hypervisor != "auto":
        return _named(config.hypervisor, plugins)
    candidates = sorted((t for t in types.values() if t.rank >= 0), key=lambda t: -t.rank)
    reasons = {t.name: unusable(t, plugins) for t in candidates}
    usable = [t for t in candidates if reasons[t.name] is None]
    if not usable:
        text = "; ".join(f"{name}: {why}" for name, why in reasons.items()) or "none is installed"
        raise ConfigError(f"no hypervisor can be used here: {text}", option="--hypervisor", value="auto")
    return usable[0]


def _named(name: str, plugins: PluginManager) -> HypervisorType:
    """The hypervisor that the user asks for. Raises ConfigError, PluginError."""
    try:
        found = plugins.hypervisor_type(name)
    except ConfigError as e:
        raise ConfigError(str(e), option="--hypervisor", value=name) from None
    if found is None:
        types = plugins.hypervisor_types()
        text = f"no such hypervisor; {did_you_mean(name, types)}known: {', '.join(['auto', *sorted(types)])}"
        raise ConfigError(text, option="--hypervisor", value=name)
    return found


def unusable(hypervisor: HypervisorType, plugins: PluginManager) -> str | None:
    """``probe`` where nobody has asked for this one: one whose plugin fails is not usable, and others may be."""
    try:
        return probe(hypervisor, plugins)
    except PluginError as e:
        return str(e)


def probe(hypervisor: HypervisorType, plugins: PluginManager) -> str | None:
    """Why *hypervisor* can't be used here. Raises PluginError."""
    with blame(f"{plugins.provider(hypervisor)}: {hypervisor.name}"):
        reason = hypervisor.probe()
        if reason is None or isinstance(reason, str):
            return reason
        raise TypeError(f"probe returned {type(reason).__name__}, not the reason as text or None")


def asked_options(config: MachineConfig) -> dict[str, object]:
    """The options that only some hypervisors have (``HypervisorType.takes``), by name, as far as they were given."""
    values = {
        "rtvm": config.rtvm,
        "lapic_pt": config.lapic_pt,
        "intr_monitor": config.interrupt_monitor,
        "enable_trusty": config.enable_trusty,
    }
    return {name: value for name, value in values.items() if value}


def hypervisor_options(config: MachineConfig, hypervisor: HypervisorType) -> HypervisorOptions:
    """What *hypervisor* is to make."""
    taken = {name: value for name, value in asked_options(config).items() if name in hypervisor.takes}
    return HypervisorOptions(
        name=config.name,
        vcpus=config.vcpus,
        allow_slow=config.allow_slow,
        cpu_affinity=config.cpu_affinity,
        plugin_options={**config.plugin_options, **taken},
    )


def unprovided(config: MachineConfig, hypervisor: HypervisorType) -> tuple[list[str], list[str]]:
    """Return what *hypervisor* ignores of what was asked for, and what it can't do without making another guest of it,
    one line each.
    """
    reason = f"{hypervisor.name} has none; it needs the hypervisor hsm"
    missing = [name for name in asked_options(config) if name not in hypervisor.takes]
    ignored = [f"--{name}: ignored: {reason}" for name in missing if name not in MAKES_ANOTHER_GUEST]
    if config.lapic_pt and "lapic_pt" in hypervisor.takes and not config.rtvm:
        ignored.append("--lapic_pt: ignored: only with --rtvm")
    refused = [f"--{name}: {reason}" for name in missing if name in MAKES_ANOTHER_GUEST]
    return ignored, refused + hypervisor.check(hypervisor_options(config, hypervisor))
