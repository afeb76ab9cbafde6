"""acrn_dm.backends.wire.order: what a device's process is told comes there as it was."""

import pytest

from acrn_dm.backends.wire.order import Order, decode
from acrn_dm.base.process.users import User
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.plugins.selection import Selection
from acrn_dm.contract.types import Bdf, DeviceContext


@pytest.mark.parametrize(
    "plugins", [None, Selection(), Selection(only=frozenset({"a", "b"})), Selection(without=frozenset({"virtio-blk"}))]
)
@pytest.mark.parametrize("user", [None, User(text="a:b", uid=1, gid=2)])
def test_order_comes_as_it_was(plugins: Selection | None, user: User | None) -> None:
    bdf = Bdf(slot=3)
    order = Order(
        spec=DeviceSpec(bdf=bdf, kind="toy", text="a=1,b", origin="-s 3,toy"),
        context=DeviceContext(bdf=bdf, kind="toy", machine="vm", vcpus=2, plugin_options={"x": 1}),
        sandbox="strict",
        plugins=plugins,
        user=user,
    )
    found = decode(order.encode())
    assert (found.spec, found.context, found.sandbox) == (order.spec, order.context, "strict")
    assert found.user == user
    assert (found.plugins is None) == (plugins is None)
    if found.plugins is not None and plugins is not None:
        assert (found.plugins.only, found.plugins.without) == (plugins.only, plugins.without)
        assert not found.plugins.strict
