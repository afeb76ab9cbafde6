"""vhost-user: data moves in another process. The plugin that offers it; ``backend`` is imported for who chooses it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import BackendType

if TYPE_CHECKING:
    from acrn_dm.backends.user.backend import VhostUser
    from acrn_dm.virtio.device import VirtioDevice


def create(device: "VirtioDevice") -> "VhostUser":
    """The backend of *device*. Raises ConfigError where its options name no socket."""
    from acrn_dm.backends.opaque import OpaqueBackend, OpaqueDevice  # noqa: PLC0415
    from acrn_dm.backends.user.backend import VhostUser  # noqa: PLC0415

    return OpaqueBackend(device) if isinstance(device, OpaqueDevice) else VhostUser(device)


@hookimpl
def acrn_dm_backend_types() -> Iterable[BackendType]:
    """Every kind of device that has a socket to offer."""
    return [BackendType(name="vhost-user", summary="in another process, by a socket", kinds={"*"}, create=create)]
