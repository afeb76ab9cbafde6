"""Forty and more ways in which an installed plugin can be broken: each costs one line that names plugin, distribution
and version, and a machine that does not need the plugin runs.
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_rng
import attrs
import pytest

from acrn_dm.base.errors import ConfigError, PluginError
from acrn_dm.cli.plugin_options import OptionParser
from acrn_dm.testing import SimMachine
from tests.contract.plugins.installed import entries, install

OBSERVERS = {
    "acrn_dm_machine_built": "machine",
    "acrn_dm_machine_started": "machine",
    "acrn_dm_machine_stopped": "machine, reason",
    "acrn_dm_device_failed": "device, error",
}
EVENTFDS = ("acrn_dm_vhm_ioeventfd", "acrn_dm_vhm_irqfd")


def offering(expression: str, hook: str = "device_types") -> str:
    return f"@hook\ndef acrn_dm_{hook}():\n    return {expression}\n"


def raising(hook: str, arguments: str, error: str = "ZeroDivisionError('boom')") -> str:
    return f"@hook\ndef {hook}({arguments}):\n    raise {error}\n"


BROKEN = {  # the source of the module, and what the line says
    "import: raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "import: missing module": ("import acrn_dm_nowhere", "No module named 'acrn_dm_nowhere'"),
    "import: missing name": ("from acrn_dm import Spline", "cannot import name 'Spline'"),
    "import: syntax": ("def f(:", "SyntaxError: invalid syntax"),
    "import: tabs": ("if 1:\n\tx = 1\n        y = 2", "TabError"),
    "import: exits": ("import sys\nsys.exit(3)", "it would end the program: sys.exit(3)"),
    "import: exits without a code": ("raise SystemExit", "it would end the program: sys.exit()"),
    "import: closes a generator": ("raise GeneratorExit", "GeneratorExit"),
    "import: base exception": ("class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
    "import: two lines": ("raise ValueError('one\\n  two')", "ValueError: one two"),
    "import: no text": (
        "class Mute(Exception):\n    def __str__(self): raise KeyError\nraise Mute",
        "Mute: its text can't be shown",
    ),
    "import: recursion": ("def f(): f()\nf()", "RecursionError"),
    "hook: unknown": ("@hook\ndef acrn_dm_device_typos(): pass", "did you mean 'acrn_dm_device_types'?"),
    "hook: unknown argument": (
        "@hook\ndef acrn_dm_machine_started(machine, moon): pass",
        "takes 'moon', which the hook has not; it has: machine",
    ),
    "hook: argument where there is none": (
        "@hook\ndef acrn_dm_device_types(manager): return []",
        "takes 'manager', which the hook has not; it has: none",
    ),
    "devices: raise": (raising("acrn_dm_device_types", ""), "acrn_dm_device_types: ZeroDivisionError: boom"),
    "devices: exit": (raising("acrn_dm_device_types", "", "SystemExit(4)"), "would end the program: sys.exit(4)"),
    "devices: raise half-way": (
        "@hook\ndef acrn_dm_device_types():\n    yield device()\n    raise OSError(5, 'dropped')",
        "OSError: [Errno 5] dropped",
    ),
    "devices: none": (offering("None"), "returned NoneType, not a list of DeviceType"),
    "devices: text": (offering("'virtio-odd'"), "returned str, not a list of DeviceType"),
    "devices: no list": (offering("device()"), "returned one DeviceType; write a list of them"),
    "devices: class": (offering("[Device]"), "returned type, not DeviceType"),
    "devices: backend": (offering("[backend()]"), "returned BackendType, not DeviceType"),
    "devices: generator hook": (
        "def acrn_dm_device_types():\n    yield\nacrn_dm_device_types = hookimpl(wrapper=True)(acrn_dm_device_types)",
        "returned NoneType, not DeviceType",
    ),
    "device: newer": (offering("[device(api=99)]"), "'odd' needs plugin interface 99; this acrn_dm has 1"),
    "device: api in words": (offering("[device(api='2')]"), "odd: api is '2', not a whole number"),
    "device: bad name": (offering("[device('Odd One')]"), "name 'Odd One' is not a name"),
    "device: number as name": (offering("[device(5)]"), "name 5 is not a name"),
    "device: unknown field": (offering("[device(colour=1)]"), "unexpected keyword argument 'colour'"),
    "device: missing field": (offering("[DeviceType(name='odd')]"), "missing 3 required keyword-only arguments"),
    "device: aliases as text": (offering("[device(aliases='even')]"), "aliases is 'even', not a list of names"),
    "device: alias no name": (offering("[device(aliases=('No',))]"), "aliases has 'No', which is not a name"),
    "device: no option class": (offering("[device(config=None)]"), "config is a NoneType, not a class of options"),
    "device: plain class": (offering("[device(config=dict)]"), "config is dict, which is no attrs class"),
    "device: create": (offering("[device(create='Device')]"), "create is a str, which can't be called"),
    "device: summary": (offering("[device(summary=None)]"), "summary is a NoneType, not text"),
    "option: type": (
        "@attrs.frozen\nclass Bad:\n    table: dict = option(default=None, help='')\n"
        + offering("[device(config=Bad)]"),
        "odd: option 'table': dict can't be read from a command line",
    ),
    "option: annotation": (
        "@attrs.frozen\nclass Bad:\n    x: 'Nowhere' = option(default=0, help='')\n" + offering("[device(config=Bad)]"),
        "name 'Nowhere' is not defined",
    ),
    "option: mandatory after optional": (
        "@attrs.frozen\nclass Bad:\n    a: int = option(default=0, help='')\n    b: int = option(help='')\n",
        "No mandatory attributes allowed after an attribute with a default",
    ),
    "backends: raise": (raising("acrn_dm_backend_types", ""), "acrn_dm_backend_types: ZeroDivisionError: boom"),
    "backend: kinds as text": (
        offering("[backend(kinds='virtio-net')]", "backend_types"),
        "kinds is 'virtio-net', not",
    ),
    "backend: probe": (offering("[backend(probe=True)]", "backend_types"), "probe is a bool, which can't be called"),
    "backend: newer": (offering("[backend(api=2)]", "backend_types"), "needs plugin interface 2"),
    "block drivers: raise": (
        raising("acrn_dm_block_driver_types", ""),
        "acrn_dm_block_driver_types: ZeroDivisionError",
    ),
    "block drivers: device": (offering("[device()]", "block_driver_types"), "returned DeviceType, not BlockDriverType"),
    "block driver: create": (offering("[block(create=5)]", "block_driver_types"), "create is a int, which can't"),
    "block driver: plain class": (offering("[block(config=dict)]", "block_driver_types"), "dict, which is no attrs"),
    "packet drivers: exit": (raising("acrn_dm_packet_driver_types", "", "SystemExit(4)"), "would end the program"),
    "packet driver: newer": (offering("[packet(api=9)]", "packet_driver_types"), "needs plugin interface 9"),
    "packet driver: summary": (offering("[packet(summary=1)]", "packet_driver_types"), "summary is a int, not text"),
    "hypervisors: raise": (raising("acrn_dm_hypervisor_types", ""), "acrn_dm_hypervisor_types: ZeroDivisionError"),
    "hypervisor: rank": (offering("[hypervisor(rank='high')]", "hypervisor_types"), "rank is a str, not a whole"),
    "hypervisor: open": (offering("[hypervisor(open=None)]", "hypervisor_types"), "open is a NoneType, which can't"),
    "options: raise": (raising("acrn_dm_add_options", "parser"), "acrn_dm_add_options: ZeroDivisionError: boom"),
    "options: name": ("@hook\ndef acrn_dm_add_options(parser): parser.add_option('A B', help='')", "option name 'A B'"),
    "options: taken": ("@hook\ndef acrn_dm_add_options(parser): parser.add_option('name', help='')", "--name is taken"),
    "options: no help": ("@hook\ndef acrn_dm_add_options(parser): parser.add_option('odd')", "argument: 'help'"),
    **{f"observer {h}": (raising(h, a), f"{h}: ZeroDivisionError: boom") for h, a in OBSERVERS.items()},
    **{f"observer {h} exits": (raising(h, a, "SystemExit(1)"), "sys.exit(1)") for h, a in OBSERVERS.items()},
    **{f"eventfd {h}": (raising(h, "vm, binding, assign"), "ZeroDivisionError: boom") for h in EVENTFDS},
    **{f"eventfd {h} exits": (raising(h, "vm", "SystemExit(1)"), "sys.exit(1)") for h in EVENTFDS},
}


@attrs.frozen
class Place:
    """A folder on ``sys.path`` into which distributions are put."""

    folder: Path

    def run(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        """Load what is there, run a machine with another plugin's device, and return the lines about what is broken."""
        with caplog.at_level(logging.WARNING), SimMachine(plugins=[acrn_dm_rng]) as machine:
            plugins = machine.plugins
            plugins.load_entry_points(None, entries(self.folder))
            plugins.add_options(OptionParser(()))
            device = machine.add("virtio-rnd", slot=3)
            driver = machine.driver(3)
            driver.start()
            assert driver.queue(0).transfer([], [8]).written == 8
            told = {"machine": machine, "reason": "poweroff", "device": device, "error": ValueError("x")}
            for hook, arguments in OBSERVERS.items():
                plugins.observe(hook, **{name: told[name] for name in arguments.split(", ")})
            return [*map(str, plugins.faults()), *(record.getMessage() for record in caplog.records)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    known = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield Place(tmp_path)
    for name in set(sys.modules) - known:
        if name.startswith("acrn_dm_"):
            del sys.modules[name]


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_costs_a_line_and_no_machine_that_has_no_need_of_it(
    place: Place, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, said = BROKEN[case]
    install(place.folder, "bad", source)
    lines = place.run(caplog)
    assert lines
    assert all("plugin bad (acrn-dm-bad 4.2)" in line and "\n" not in line for line in lines)
    assert any(said in line for line in lines), lines
    assert len(lines) == 1 or case.startswith("eventfd")  # the kick's and the call's, each once a device


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("acrn_dm_nowhere", "No module named 'acrn_dm_nowhere'"),
        ("acrn_dm_bad:nothing", "has no attribute 'nothing'"),
        ("no module at all", "plugin bad"),
    ],
)
def test_entry_point_that_leads_nowhere_is_named(
    place: Place, target: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    install(place.folder, "bad", "", target=target)
    (line,) = place.run(caplog)
    assert "plugin bad (acrn-dm-bad 4.2)" in line
    assert said in line


def test_distribution_without_metadata_is_loaded(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    install(place.folder, "bad", "1 / 0", metadata=False)
    (line,) = place.run(caplog)
    assert line.startswith("plugin bad (")
    assert "ZeroDivisionError" in line


def test_interrupt_from_the_keyboard_is_nobody_s_fault(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    install(place.folder, "bad", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        place.run(caplog)


def test_name_that_two_offer_is_an_error_for_who_asks_and_says_what_to_do(place: Place) -> None:
    install(place.folder, "one", offering("[device(aliases=('first',))]"))
    install(place.folder, "two", offering("[device()]"), version="0.9")
    with SimMachine() as machine:
        machine.plugins.load_entry_points(None, entries(place.folder))
        assert machine.plugins.device_type("first") is not None
        with pytest.raises(ConfigError) as error:
            machine.add("odd", slot=3)
    text = "is offered by plugin one (acrn-dm-one 4.2) and by plugin two (acrn-dm-two 0.9)"
    assert str(error.value) == f"odd: the device 'odd' {text}; leave one out with --plugins no:one or --plugins no:two"


def test_refused_record_is_an_error_for_who_asks_for_its_name(place: Place) -> None:
    install(place.folder, "bad", offering("[device(api=99), device('even')]"))
    with SimMachine() as machine:
        machine.plugins.load_entry_points(None, entries(place.folder))
        assert machine.plugins.device_type("even") is not None
        with pytest.raises(PluginError, match=r"plugin bad .*needs plugin interface 99"):
            machine.add("odd", slot=3)


def test_options_of_a_plugin_that_failed_half_way_are_withdrawn(place: Place) -> None:
    install(
        place.folder,
        "bad",
        "@hook\ndef acrn_dm_add_options(parser):\n    parser.add_option('odd', help='')\n    1 / 0\n"
        + offering("[device()]"),
    )
    parser = OptionParser(())
    with SimMachine() as machine:
        machine.plugins.load_entry_points(None, entries(place.folder))
        machine.plugins.add_options(parser)
        assert machine.plugins.device_type("odd") is None
    assert parser.defaults == {}


def test_traceback_of_an_import_is_shown_on_request(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(place.folder, "bad", "def half():\n    return 1 / 0\nhalf()")
    monkeypatch.setenv("ACRN_DM_TRACEBACK", "1")
    place.run(caplog)
    assert "in half" in capsys.readouterr().err
