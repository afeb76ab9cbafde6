"""Devices in processes of their own (``process=on``): what stands in the machine for one, and what starts, watches and
restarts its process, which is ``export.helper``.

Here is the wish for one, taken from the options of any virtio device: ``process=on``, ``restart=POLICY``,
``sandbox=MODE`` and ``user=NAME``. The rest is imported where there is one.
"""

import re

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.process.users import User, find
from acrn_dm.base.records import frozen
from acrn_dm.base.sandbox import MODES, ON
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.virtio.choice import take_value

PROCESS, RESTART, SANDBOX, USER = "process", "restart", "sandbox", "user"
POLICY = r"never|on-failure(?::([1-9][0-9]{0,3}))?"


@frozen(kw_only=True)
class Wish:
    """The user's word on the process of one device. *restarts* is how often in a row it is started again; None: for
    ever. *sandbox* is one of ``base.sandbox.MODES``. *user* is who the process is when its device is open; None: who
    starts it.
    """

    restarts: int | None = None
    sandbox: str = ON
    user: User | None = None

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
    spec, sandbox = take_value(spec, config, SANDBOX)
    spec, user = take_value(spec, config, USER)
    if on not in (None, "on", "off", True, False):
        raise ConfigError("expected on or off", option=f"{where} {PROCESS}", value=on)
    if on not in ("on", True):
        for name, value in ((RESTART, policy), (SANDBOX, sandbox), (USER, user)):
            if value is not None:
                raise ConfigError("goes with process=on only", option=f"{where} {name}", value=value)
        return spec, None
    return spec, Wish(
        restarts=None if policy is None else _restarts(policy, f"{where} {RESTART}"),
        sandbox=ON if sandbox is None else _mode(sandbox, f"{where} {SANDBOX}"),
        user=None if user is None else _user(user, f"{where} {USER}"),
    )


def _restarts(policy: object, where: str) -> int | None:
    found = re.fullmatch(POLICY, policy) if isinstance(policy, str) else None
    if found is None:
        raise ConfigError("expected never, on-failure or on-failure:N", option=where, value=policy)
    if policy == "never":
        return 0
    return None if found[1] is None else int(found[1])


def _mode(value: object, where: str) -> str:
    chosen = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
    if chosen not in MODES:
        raise ConfigError(f"expected {', '.join(MODES[:-1])} or {MODES[-1]}", option=where, value=value)
    return str(chosen)


def _user(value: object, where: str) -> User:
    try:
        return find(str(value))
    except ValueError as e:
        raise ConfigError(str(e), option=where, value=value) from None
