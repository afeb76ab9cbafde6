"""The order that a helper process is given: which device to serve, as its machine resolved it, as JSON.

Both ends are this program; what a user wrote is in it as the user wrote it.
"""

import json
from typing import Any

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.process.users import User
from acrn_dm.base.records import frozen
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.plugins.selection import Selection
from acrn_dm.contract.types import Bdf, DeviceContext

READY = b"\x06"  # ASCII's ACK: what the process reports when its device is open
MEMBERS = ("machine", "vcpus", "windows", "virtio_msi")  # of the context, beside the place and what plugins added


@frozen(kw_only=True)
class Order:
    """One device: *spec* as the user wrote it but for what concerns its process, and the *context* that the machine
    made, as far as it is not read from *spec* again. *sandbox* is one of ``base.sandbox.MODES``. *user* is who the
    process is to be when the device is open. *plugins* are the installed ones that the machine loads, and so its
    processes do; None: none of them.
    """

    spec: DeviceSpec
    context: DeviceContext
    sandbox: str
    plugins: Selection | None
    user: User | None = None

    def encode(self) -> bytes:
        """For the process. Raises ConfigError for an option of a plugin that can't be told."""
        spec, context = self.spec, self.context
        told: dict[str, object] = {name: getattr(context, name) for name in MEMBERS}
        told |= {"bdf": [spec.bdf.bus, spec.bdf.slot, spec.bdf.func], "kind": spec.kind, "origin": spec.origin}
        told |= {"text": spec.text, "table": spec.table, "plugin_options": dict(context.plugin_options)}
        told["sandbox"] = self.sandbox
        told["user"] = None if self.user is None else [self.user.text, self.user.uid, self.user.gid]
        chosen = self.plugins
        told["plugins"] = None if chosen is None else [_names(chosen.only), _names(chosen.without)]
        try:
            return json.dumps(told).encode()
        except (TypeError, ValueError) as e:
            raise ConfigError(f"a process of its own can't be told all of its options: {e}", option=context.name) from e


def decode(data: bytes) -> Order:
    """What ``encode`` made. Raises ValueError, KeyError, TypeError."""
    told: dict[str, Any] = json.loads(data)
    bus, slot, func = told["bdf"]
    bdf = Bdf(bus=bus, slot=slot, func=func)
    return Order(
        spec=DeviceSpec(bdf=bdf, kind=told["kind"], text=told["text"], table=told["table"], origin=told["origin"]),
        context=DeviceContext(
            bdf=bdf,
            kind=told["kind"],
            plugin_options=told["plugin_options"],
            **{name: told[name] for name in MEMBERS},
        ),
        sandbox=told["sandbox"],
        plugins=None if told["plugins"] is None else _selection(*told["plugins"]),
        user=None if told["user"] is None else _user(*told["user"]),
    )


def _user(text: str, uid: int, gid: int) -> User:
    return User(text=text, uid=uid, gid=gid)


def _names(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _selection(only: list[str] | None, without: list[str]) -> Selection:
    """Whether there are such plugins was asked before."""
    return Selection(only=None if only is None else frozenset(only), without=frozenset(without), strict=False)
