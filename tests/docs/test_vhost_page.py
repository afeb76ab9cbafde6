"""What docs/how-to/vhost.md shows works: every option it names."""

import re
from pathlib import Path

import pytest

from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf
from acrn_dm.machine.resolve import resolve_devices

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "vhost.md").read_text()
OPTIONS = re.findall(r"`(virtio-[a-z]+),([^`]*)`", PAGE)


@pytest.mark.parametrize(("kind", "text"), OPTIONS, ids=[f"{kind},{text}" for kind, text in OPTIONS])
def test_option_in_the_table_is_understood(kind: str, text: str) -> None:
    device = DeviceSpec(bdf=Bdf(slot=3), kind=kind, text=text)
    config = MachineConfig(name="vm", devices=(device,))
    (resolved,) = resolve_devices(config, make_plugin_manager(entry_points=False))
    made = resolved.type.create(resolved.options, resolved.context)
    assert made.placement.backend == ("vhost-user" if "vhost-user" in text or "socket=" in text else "vhost")


@pytest.mark.parametrize(("key", "value"), [("vhost", True), ("vhost", "auto"), ("vhost-user", "/run/x.sock")])
def test_toml_key_is_understood(key: str, value: object) -> None:
    table = {key: value} if key == "vhost-user" else {key: value, "tap": "t0"}
    config = MachineConfig(name="vm", devices=(DeviceSpec(bdf=Bdf(slot=3), kind="virtio-net", table=table),))
    assert resolve_devices(config, make_plugin_manager(entry_points=False))[0].options
