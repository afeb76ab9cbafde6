"""acrn_dm.machine.resolve: from a device as written to its type, options and place."""

import pytest

from acrn_dm.base.errors import ConfigError, PluginError
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.contract.types import Bdf
from acrn_dm.machine.resolve import ORIGINAL_DEVICES, resolve_devices, without_obsolete
from tests.cli.fakes import NoOptions, ToyOptions, device_type, managing, plugin


@pytest.fixture
def plugins() -> PluginManager:
    return managing()()


def spec(slot: int, kind: str, text: str = "", **more: object) -> DeviceSpec:
    return DeviceSpec(bdf=Bdf(slot=slot), kind=kind, text=text, **more)  # type: ignore[arg-type]


def test_devices_come_in_order_of_their_places(plugins: PluginManager) -> None:
    config = MachineConfig(devices=(spec(5, "toy"), spec(0, "hostbridge"), spec(3, "toy")))
    assert [d.context.bdf.slot for d in resolve_devices(config, plugins)] == [0, 3, 5]


def test_context_is_what_the_machine_says(plugins: PluginManager) -> None:
    config = MachineConfig(
        name="m", vcpus=3, windows=True, virtio_msi=True, virtio_poll_ns=7, devices=(spec(3, "toy", "size=9"),)
    )
    (device,) = resolve_devices(config, plugins)
    context = device.context
    assert (context.name, context.text, context.machine, context.vcpus) == ("toy-3:0", "size=9", "m", 3)
    assert (context.windows, context.virtio_msi, context.poll_ns) == (True, True, 7)
    assert device.options == ToyOptions(size=9)


def test_alias_is_the_same_type_under_its_own_name(plugins: PluginManager) -> None:
    (device,) = resolve_devices(MachineConfig(devices=(spec(3, "plaything"),)), plugins)
    assert (device.type.name, device.context.kind) == ("toy", "plaything")


def test_table_gives_options_and_a_text_that_is_stable(plugins: PluginManager) -> None:
    table = {"size": 9, "loud": True}
    (device,) = resolve_devices(MachineConfig(devices=(spec(3, "toy", table=table),)), plugins)
    assert device.options == ToyOptions(size=9, loud=True)
    assert device.context.text == "size=9,loud=True"


def test_own_from_mapping_is_preferred() -> None:
    class Own:
        @classmethod
        def from_mapping(cls, table: object) -> object:
            return ("own", table)

    plugins = managing(plugin("p", acrn_dm_device_types=lambda: [device_type("odd", Own)]))()
    (device,) = resolve_devices(MachineConfig(devices=(spec(3, "odd", table={"a": 1}),)), plugins)
    assert device.options == ("own", {"a": 1})


@pytest.mark.parametrize("kind", sorted(ORIGINAL_DEVICES))
def test_device_of_the_original_that_nobody_provides_is_named_and_nothing_to_install(
    plugins: PluginManager, kind: str
) -> None:
    with pytest.raises(ConfigError, match="is missing") as e:
        resolve_devices(MachineConfig(devices=(spec(3, kind),)), plugins)
    assert str(e.value) == f"-s 0:3.0,{kind}: the original's emulation of {kind!r} is missing: no plugin provides it"


def test_original_device_is_used_once_a_plugin_provides_it() -> None:
    plugins = managing(plugin("p", acrn_dm_device_types=lambda: [device_type("passthru", NoOptions)]))()
    (device,) = resolve_devices(MachineConfig(devices=(spec(3, "passthru"),)), plugins)
    assert device.type.name == "passthru"


def test_obsolete_device_is_taken_out_or_refused(plugins: PluginManager) -> None:
    config = MachineConfig(devices=(spec(2, "npk", origin="-s 2,npk"), spec(3, "toy")))
    kept, lines = without_obsolete(config, plugins)
    assert [d.kind for d in kept.devices] == ["toy"]
    assert lines == ("-s 2,npk: npk is obsolete and ignored",)
    assert without_obsolete(kept, plugins) == (kept, ())
    with pytest.raises(ConfigError, match="obsolete"):
        resolve_devices(config, plugins)


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("y"), PluginError("z", provenance="p")])
def test_grammar_that_raises_something_else_is_the_plugins_fault(error: Exception) -> None:
    class Broken:
        @classmethod
        def from_string(cls, text: str) -> None:
            raise error

    plugins = managing(plugin("p", acrn_dm_device_types=lambda: [device_type("odd", Broken)]))()
    with pytest.raises(PluginError):
        resolve_devices(MachineConfig(devices=(spec(3, "odd"),)), plugins)
