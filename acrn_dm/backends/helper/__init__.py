"""Devices in processes of their own (``process=on``): what stands in the machine for one, and what starts, watches and
restarts its process, which is ``export.helper``.

Here is the wish for one, taken from the options of any virtio device: ``process=on`` and ``restart=POLICY``. The rest
is imported where there is one.
"""

import re

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.virtio.choice import take_value

PROCESS, RESTART = "process", "restart"
POLICY = re.compile(r"never|on-failure(?::([1-9][0-9]{0,3}))?")


@frozen(kw_only=True)
class Wish:
    """The user's word on the process of one device. *restarts* is how often in a row it is started again; None: for
    ever.
    """

    restarts: int | None = None

    @property
    def policy(self) -> str:
        """As the user writes it."""
        if self.restarts is None:
            return "restart=on-failure"
        return f"restart=on-failure:{self.restarts}" if self.restarts else "restart=never"


def take(spec: DeviceSpec, config: type) -> tuple[DeviceSpec, Wish | None]:
    """Return *spec* without these options, and what they say; None: no process of its own. Raises ConfigError."""
    where = spec.origin or f"-s {spec.bdf},{spec.kind}"
    spec, on = take_value(spec, config, PROCESS)
    spec, policy = take_value(spec, config, RESTART)
    if on not in (None, "on", "off", True, False):
        raise ConfigError("expected on or off", option=f"{where} {PROCESS}", value=on)
    if on not in ("on", True):
        if policy is not None:
            raise ConfigError("goes with process=on only", option=f"{where} {RESTART}", value=policy)
        return spec, None
    return spec, Wish(restarts=None if policy is None else _restarts(policy, f"{where} {RESTART}"))


def _restarts(policy: object, where: str) -> int | None:
    found = POLICY.fullmatch(policy) if isinstance(policy, str) else None
    if found is None:
        raise ConfigError("expected never, on-failure or on-failure:N", option=where, value=policy)
    if policy == "never":
        return 0
    return None if found[1] is None else int(found[1])
