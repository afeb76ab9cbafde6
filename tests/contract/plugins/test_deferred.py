"""acrn_dm.contract.plugins.deferred: plugins that are imported when one of their devices is asked for."""

import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.plugins import BUILTINS, PluginManager, make_plugin_manager
from acrn_dm.contract.plugins.builtins import OFFERED
from acrn_dm.contract.plugins.deferred import GROUP
from acrn_dm.contract.plugins.selection import Selection
from acrn_dm.contract.types import Provenance
from tests.contract.plugins.installed import entries, install

ODD = "@hook\ndef acrn_dm_device_types():\n    return [device('odd', aliases=('strange',))]\n"


@attrs.frozen
class Place:
    """A folder on ``sys.path`` with distributions, and the manager that has looked into it."""

    folder: Path

    def put(self, name: str, source: str, devices: Iterable[str] = ()) -> None:
        install(self.folder, name, source, devices=devices)

    def manager(self, selection: Selection | None = None) -> PluginManager:
        made = make_plugin_manager(builtins={}, entry_points=False)
        made.load_entry_points(None, entries(self.folder), declared=entries(self.folder, GROUP), selection=selection)
        return made

    def imported(self) -> set[str]:
        return {name for name in sys.modules if name.startswith(("acrn_dm_odd", "acrn_dm_even"))}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.syspath_prepend(tmp_path)
    it = Place(tmp_path)
    yield it
    for name in it.imported():
        del sys.modules[name]


def test_plugin_whose_devices_are_told_is_imported_when_one_of_them_is_asked_for(place: Place) -> None:
    place.put("odd", ODD, ["odd", "strange"])
    place.put("even", ODD.replace("odd", "even").replace("strange", "level"), ["even", "level"])
    plugins = place.manager()
    before = place.imported()
    kind = plugins.device_type("strange")
    assert kind is not None
    assert (before, kind.name, place.imported()) == (set(), "odd", {"acrn_dm_odd"})


def test_plugin_that_tells_nothing_is_imported_at_once(place: Place) -> None:
    place.put("odd", ODD)
    place.manager()
    assert place.imported() == {"acrn_dm_odd"}


def test_device_that_its_plugin_does_not_tell_is_found_all_the_same(place: Place) -> None:
    place.put("odd", ODD, ["odd"])
    kind = place.manager().device_type("strange")
    assert kind is not None
    assert kind.name == "odd"


@pytest.mark.parametrize("question", ["device_types", "loaded", "devices", "backends"])
def test_question_about_all_has_all_answers(place: Place, question: str) -> None:
    place.put("odd", ODD, ["odd"])
    asked = getattr(place.manager(), question)
    if callable(asked):
        asked()
    assert place.imported() == {"acrn_dm_odd"}


def test_broken_plugin_has_its_line_when_its_device_is_asked_for(place: Place) -> None:
    place.put("odd", "1 / 0", ["odd"])
    plugins = place.manager()
    assert plugins.device_type("odd") is None
    assert [str(p) for p in plugins.faults()] == ["plugin odd (acrn-dm-odd 4.2): ZeroDivisionError: division by zero"]


def test_hook_that_every_start_needs_is_refused_with_the_way_out(place: Place) -> None:
    place.put("odd", ODD + "@hook\ndef acrn_dm_machine_started(machine): pass\n", ["odd"])
    plugins = place.manager()
    plugins.load_devices(["odd"])
    (line,) = map(str, plugins.faults())
    assert "acrn_dm_machine_started: every start needs it, so leave the entry points of group acrn_dm.devices" in line


def test_name_that_two_plugins_tell_is_nobody_s(place: Place) -> None:
    place.put("odd", ODD, ["odd"])
    place.put("even", ODD, ["odd"])
    with pytest.raises(ConfigError, match=r"'odd' is offered by plugin even .* and by plugin odd"):
        place.manager().device_type("odd")


def test_backend_of_a_device_is_there_with_it(place: Place) -> None:
    place.put(
        "odd", ODD + "@hook\ndef acrn_dm_backend_types():\n    return [backend('far', kinds=('odd',))]\n", ["odd"]
    )
    plugins = place.manager()
    before = [t.name for t in plugins.backend_types()]
    plugins.load_devices(["odd"])
    assert (before, [t.name for t in plugins.backend_types()]) == ([], ["far"])


def test_backend_that_no_device_here_has_is_looked_for_by_its_name(place: Place) -> None:
    place.put(
        "odd", ODD + "@hook\ndef acrn_dm_backend_types():\n    return [backend('far', kinds=('odd',))]\n", ["odd"]
    )
    assert [t.name for t in place.manager().backend_types("far")] == ["far"]


def test_plugin_that_is_left_out_is_never_imported(place: Place) -> None:
    place.put("odd", ODD, ["odd"])
    plugins = place.manager(Selection.from_words(["no:odd"]))
    assert (plugins.device_type("odd"), place.imported()) == (None, set())


def test_name_of_a_plugin_that_waits_is_taken(place: Place) -> None:
    place.put("odd", ODD, ["odd"])
    plugins = place.manager()
    with pytest.raises(Exception, match=r"the name is taken by plugin odd \(acrn-dm-odd 4.2\)"):
        plugins.register(object(), Provenance(plugin="odd"))


def test_hook_is_called_once_however_late_others_come(place: Place) -> None:
    place.put("even", "asked = []\n@hook\ndef acrn_dm_device_types():\n    asked.append(1)\n    return []\n")
    place.put("odd", ODD, ["odd"])
    plugins = place.manager()
    plugins.faults()
    plugins.load_devices(["odd"])
    plugins.faults()
    assert importlib.import_module("acrn_dm_even").asked == [1]


@pytest.mark.parametrize("name", OFFERED)
def test_built_in_plugin_offers_what_is_told_of_it_and_backends_for_nothing_else(name: str) -> None:
    plugins = make_plugin_manager(builtins={name: BUILTINS[name]}, entry_points=False)
    kinds = {kind for offer in plugins.backends.accepted for kind in offer.record.kinds}
    names = {*plugins.device_types(), *plugins.block_drivers.claims, *plugins.packet_drivers.claims}
    assert (names, kinds - set(OFFERED[name])) == (set(OFFERED[name]), set())


def test_each_built_in_plugin_with_devices_waits() -> None:
    made = {name: make_plugin_manager(builtins={name: module}, entry_points=False) for name, module in BUILTINS.items()}
    assert {name for name, plugins in made.items() if plugins.device_types()} == set(OFFERED)


DRIVER = "@hook\ndef acrn_dm_block_driver_types():\n    return [block('odd')]\n"


def test_plugin_whose_drivers_are_told_is_imported_when_one_of_them_is_asked_for(place: Place) -> None:
    place.put("odd", DRIVER, ["odd"])
    plugins = place.manager()
    before = place.imported()
    driver = plugins.block_driver("odd")
    assert driver is not None
    assert (before, driver.name, place.imported()) == (set(), "odd", {"acrn_dm_odd"})


def test_driver_that_nobody_is_known_to_offer_is_looked_for_in_all(place: Place) -> None:
    place.put("odd", DRIVER.replace("'odd'", "'even'"), ["odd"])
    plugins = place.manager()
    assert plugins.packet_driver("nothing") is None
    driver = plugins.block_driver("even")
    assert driver is not None
    assert [offer.record.name for offer in place.manager().block_drivers.accepted] == ["even"]
