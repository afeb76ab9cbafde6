"""The switches of one device: features of rings and registers that the user may turn on or off (``queue_reset=off``).

They stand among a device's own options, whatever their grammar is; a kind whose option class has a field of that name
keeps it for itself. Names are QEMU's where it has one.
"""

from collections.abc import Mapping
from types import MappingProxyType

from acrn_dm.virtio import features

SWITCHES: Mapping[str, int] = MappingProxyType(
    {
        "queue_reset": features.RING_RESET,
        "notification_data": features.NOTIFICATION_DATA,
        "notif_config_data": features.NOTIF_CONFIG_DATA,
        "access_platform": features.ACCESS_PLATFORM,
    }
)
NO_SWITCHES: Mapping[str, bool] = MappingProxyType({})


def offered_by_pci(chosen: Mapping[str, bool]) -> int:
    """Feature bits that the PCI transport offers for a device whose user has *chosen* so."""
    offered = features.OFFERED_BY_PCI
    for name, on in chosen.items():
        offered = offered | SWITCHES[name] if on else offered & ~SWITCHES[name]
    return offered
