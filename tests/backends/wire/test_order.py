"""acrn_dm.backends.wire.order: what a helper process is told."""

import datetime

import pytest

from acrn_dm.backends.wire.order import Order, decode
from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.types import Bdf, DeviceContext

BDF = Bdf(bus=1, slot=3, func=2)


@pytest.mark.parametrize("options", [{"text": "a=1,b"}, {"table": {"a": 1, "b": True, "c": ["x"]}}])
def test_order_comes_as_it_was_given(options: dict[str, object]) -> None:
    spec = DeviceSpec(bdf=BDF, kind="toy", origin="-s 3:2,toy", **options)  # type: ignore[arg-type]
    context = DeviceContext(
        bdf=BDF, kind="toy", machine="m", vcpus=3, windows=True, virtio_msi=True, plugin_options={"o": 5}
    )
    order = Order(spec=spec, context=context)
    told = decode(order.encode())
    assert told == order
    assert told.spec.origin == "-s 3:2,toy"


def test_option_that_can_t_be_told_is_said() -> None:
    context = DeviceContext(bdf=BDF, kind="toy", plugin_options={"when": datetime.date(2020, 1, 1)})
    with pytest.raises(ConfigError, match=r"toy-3:2: a process of its own can't be told all of its options: .*date"):
        Order(spec=DeviceSpec(bdf=BDF, kind="toy"), context=context).encode()
