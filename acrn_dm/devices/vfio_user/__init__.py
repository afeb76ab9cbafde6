"""vfio-user: a PCI function that another process is; ours are served by ``acrn-dm-export vfio-user``."""

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import DeviceType
from acrn_dm.devices.vfio_user.config import VfioUserConfig
from acrn_dm.devices.vfio_user.function import ForeignFunction


@hookimpl
def acrn_dm_device_types() -> tuple[DeviceType, ...]:
    """Offer ``vfio-user``."""
    summary = "any PCI function of another process, by vfio-user"
    return (DeviceType(name="vfio-user", summary=summary, config=VfioUserConfig, create=ForeignFunction),)
