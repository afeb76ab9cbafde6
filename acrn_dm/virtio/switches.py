"""The switches of one device: features of rings and registers that the user may turn on or off (``queue_reset=off``).

They stand among a device's own options, whatever their grammar is; a kind whose option class has a field of that name
keeps it for itself. Names are QEMU's where it has one.
"""

from collections.abc import Mapping
from types import MappingProxyType

from acrn_dm.base.errors import ConfigError
from acrn_dm.virtio import features

SWITCHES: Mapping[str, int] = MappingProxyType(
    {
        "packed": features.PACKED,
        "in_order": features.IN_ORDER,
        "indirect_desc": features.INDIRECT_DESC,
        "queue_reset": features.RING_RESET,
        "notification_data": features.NOTIFICATION_DATA,
        "notif_config_data": features.NOTIF_CONFIG_DATA,
        "access_platform": features.ACCESS_PLATFORM,
    }
)
OF_RINGS = ("in_order", "indirect_desc")  # whoever serves them, on whatever bus


def packed_offered(by_default: bool, chosen: Mapping[str, bool]) -> int:
    """The bit of packed rings where the user wants them, or where nothing is said and they are offered *by_default*."""
    return features.PACKED if chosen.get("packed", by_default) else 0


def offered_by_rings(in_order: bool | None, chosen: Mapping[str, bool], device: str) -> int:
    """Feature bits of rings that are offered for the device called *device*, but for packed ones: what its kind says of
    IN_ORDER, and what the user has *chosen*. Raises ConfigError for IN_ORDER where the device can't have it.
    """
    if in_order is None and chosen.get("in_order"):
        raise ConfigError("its requests can't wait for one another", option=device, value="in_order=on")
    offered = features.OFFERED_BY_TRANSPORT | (features.IN_ORDER if in_order else 0)
    return _switched(offered, {name: chosen[name] for name in OF_RINGS if name in chosen})


def offered_for(in_order: bool | None, chosen: Mapping[str, bool], device: str) -> int:
    """``offered_by_rings``, and those of registers. Raises ConfigError."""
    return _switched(offered_by_rings(in_order, chosen, device) | features.OFFERED_BY_PCI, chosen)


def _switched(offered: int, chosen: Mapping[str, bool]) -> int:
    for name, on in chosen.items():
        offered = offered | SWITCHES[name] if on else offered & ~SWITCHES[name]
    return offered
