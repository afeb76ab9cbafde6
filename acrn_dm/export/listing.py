"""The kinds of devices that can be served, as people and programs are told of them."""

import typing
from collections.abc import Iterator

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.contract.types import Bdf, DeviceType
from acrn_dm.export.making import LISTED_BY, NOT_SERVED
from acrn_dm.machine.resolve import wanted
from acrn_dm.virtio.device import VirtioDevice

# By QEMU's VhostUserBackendType (docs/interop/vhost-user.json) and the names of its devices (vhost-user-NAME-pci) for
# those which that list has not got yet.
TYPES = {
    1: "net",
    2: "block",
    3: "console",
    4: "rng",
    5: "balloon",
    7: "rpmsg",
    8: "scsi",
    9: "9p",
    11: "rproc-serial",
    12: "caif",
    16: "gpu",
    18: "input",
    19: "vsock",
    20: "crypto",
    24: "mem",
    25: "snd",
    26: "fs",
    27: "pmem",
    32: "scmi",
    34: "i2c",
    36: "can",
    41: "gpio",
    45: "spi",
}


@frozen(kw_only=True)
class Served:
    """One kind: its names, what it is, and who offers it."""

    names: tuple[str, ...]
    summary: str
    provider: str


def type_name(text: str, plugins: PluginManager) -> str:
    """What the device of *text* is to QEMU; one that it has no name for is told of by its number. Makes and opens
    nothing. Raises ConfigError, PluginError.
    """
    name = text.partition(",")[0]
    spec = DeviceSpec(bdf=Bdf(slot=0), kind=name, origin=name)
    made = _made_by(wanted(spec, plugins, LISTED_BY))
    if made is None:
        raise ConfigError("no virtio device, or its record does not tell which", option=name)
    return TYPES.get(made.device_id, f"device-{made.device_id}")


def served(plugins: PluginManager) -> Iterator[Served]:
    """All kinds of which their records tell that they make virtio devices that can be served, by name."""
    for kind in sorted({id(kind): kind for kind in plugins.device_types().values()}.values(), key=lambda t: t.name):
        made = _made_by(kind)
        if made is not None and made.device_id not in NOT_SERVED and getattr(made, "backend_name", None) is None:
            names = (kind.name, *kind.aliases)
            yield Served(names=names, summary=kind.summary, provider=str(plugins.provider(kind)))


def _made_by(kind: DeviceType) -> type[VirtioDevice] | None:
    """The class of the devices that *kind* makes, where it tells and they are virtio devices."""
    made: object = kind.create
    if not isinstance(made, type):
        try:
            made = typing.get_type_hints(made).get("return")
        except Exception:  # a plugin's annotations may be anything
            return None
    return made if isinstance(made, type) and issubclass(made, VirtioDevice) else None
