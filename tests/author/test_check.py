"""acrn_dm.author.check: what is said of a plugin that is right, and of one that is wrong."""

import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.author.check import Level, check
from acrn_dm.author.cli import main
from acrn_dm.base.errors import ConfigError
from acrn_dm.testing.conformance import RULES, conform
from tests.contract.plugins.installed import install

FEW = [rule for rule in RULES if "dm.lost_chain" in rule.ids]  # all of them take seconds
OFFER = "@hook\ndef acrn_dm_device_types():\n    return [{}]\n"
DRIVER = "@hook\ndef acrn_dm_block_driver_types():\n    return [{}]\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose distributions are installed."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("acrn_dm.author.check.conform", functools.partial(conform, rules=FEW))
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("acrn_dm_"):
            del sys.modules[name]


def wrong(package: str) -> list[str]:
    return [str(finding) for finding in check(package, {}) if finding.level is Level.WRONG]


def test_plugin_that_is_right_has_nothing_wrong_and_is_held_to_the_specifications(place: Path) -> None:
    install(place, "odd", OFFER.format("device()"))
    findings = list(check("odd", {}))
    assert [f for f in findings if f.level is not Level.GOOD] == []
    assert any(f.subject == "odd conformance" and "passed" in f.text for f in findings)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "loading: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(1)", "loading: it would end the program: sys.exit(1)"),
        ("pass", "hooks: none; a hook is a function named acrn_dm_... under @hookimpl"),
        (
            "def acrn_dm_device_types(): return []",
            "acrn_dm_device_types: is not under @hookimpl, so it is never called",
        ),
        (OFFER.format("device(api=9)"), "'odd' needs plugin interface 9"),
        (OFFER.format("device('virtio-blk')"), "the device 'virtio-blk' is offered by plugin devices.virtio_blk"),
        (
            "@attrs.frozen\nclass Bad:\n    size: int = option(default='4', help='A size.')\n"
            + OFFER.format("device(config=Bad)"),
            "odd size: the default '4' is a str, and values are int",
        ),
        (
            "@attrs.frozen\nclass Bad:\n    size: int = option(default=4, help='')\n"
            + OFFER.format("device(config=Bad)"),
            "odd size: has no help text",
        ),
        (OFFER.format("device(create=lambda config, context: None)"), "odd conformance: it can't be started"),
        (OFFER.format("device(create=lambda config, context: 1 / 0)"), "starting it raises ZeroDivisionError"),
        (DRIVER.format("block()"), "odd driver: it can't be used: .*made a NoneType, which is no BlockDriver"),
        (
            "@attrs.frozen\nclass Bad:\n    mq: int = option(default=4, help='')\n"
            + DRIVER.format("block(config=Bad)"),
            "odd driver: virtio-blk has an option 'mq' itself",
        ),
        (
            "@attrs.frozen\nclass Bad:\n    seed: int = option(default=4, help='')\n"
            + DRIVER.format("block(config=Bad)"),
            "odd seed: has no help text",
        ),
        (
            "@hook\ndef acrn_dm_hypervisor_types():\n    return [hypervisor(probe=lambda: 1 / 0)]\n",
            "odd: probe raises ZeroDivisionError",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(place: Path, source: str, said: str) -> None:
    install(place, "bad", source)
    lines = wrong("bad")
    assert any(re.search(re.escape(said).replace(r"\.\*", ".*"), line) for line in lines), lines
    assert all("\n" not in line for line in lines)


def test_device_that_breaks_the_specification_fails_by_row(place: Path) -> None:
    source = "class Bad(Device):\n    def handle_queue(self, queue): 1 / 0\n"
    install(place, "bad", source + OFFER.format("device(create=Bad)"))
    assert any("odd conformance: dm.exception " in line for line in wrong("bad"))


def test_devices_that_its_entry_points_tell_of_wrongly_are_named(place: Path) -> None:
    install(place, "odd", OFFER.format("device('odd', aliases=('strange',))"), devices=["odd", "even"])
    group = "group acrn_dm.devices"
    assert wrong("odd") == [
        f"wrong even: is told of in the entry points of {group}, and not offered",
        f"wrong strange: is missing in the entry points of {group}: whoever asks for it waits for all plugins",
    ]


def test_plugin_goes_by_its_name_its_distribution_s_or_its_module_s(place: Path) -> None:
    install(place, "odd", OFFER.format("device()"))
    for name in ("odd", "acrn-dm-odd", "acrn_dm_odd"):
        assert next(check(name, {})).text.startswith("plugin odd (acrn-dm-odd 4.2) from ")


def test_module_that_no_entry_point_names_is_checked_as_well(place: Path) -> None:
    install(place, "odd", OFFER.format("device()"))
    (place / "loose.py").write_text((place / "acrn_dm_odd.py").read_text().replace('name="odd"', 'name="loose"'))
    assert any(finding.subject == "loose" for finding in check("loose", {}))


def test_required_options_are_asked_for(place: Path) -> None:
    source = "@attrs.frozen\nclass Needs:\n    size: int = option(help='A size.')\n" + OFFER.format(
        "device(config=Needs)"
    )
    install(place, "odd", source)
    assert [f.text for f in check("odd", {}) if f.level is Level.NOTE] == [
        "not tried: option 'size' is required; --options 'odd:size=...' tries it"
    ]
    assert all(f.level is Level.GOOD for f in check("odd", {"odd": "size=1"}))


def test_nothing_of_the_name_suggests_what_is_there(place: Path) -> None:
    install(place, "odd", "")
    with pytest.raises(ConfigError, match="did you mean 'odd'"):
        list(check("ood", {}))


@pytest.mark.parametrize(("source", "code"), [(OFFER.format("device()"), 0), ("1 / 0", 1)])
def test_exit_code_says_whether_something_is_wrong(
    place: Path, source: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    install(place, "odd", source)
    assert main(["check", "odd"]) == code
    assert capsys.readouterr().out.splitlines()[0].split()[0] == ("ok" if code == 0 else "wrong")


@pytest.mark.stress
def test_plugin_is_held_to_all_rules(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place, "odd", OFFER.format("device()"))
    monkeypatch.undo()
    monkeypatch.syspath_prepend(place)
    (line,) = (f for f in check("odd", {}) if f.subject == "odd conformance")
    assert line.level is Level.GOOD
    assert int(line.text.partition(" passed")[0].split()[-1]) > 50


def test_driver_that_opens_is_good(place: Path) -> None:
    source = """
class Zeroes(BlockDriver):
    size = 512
    def __init__(self, options, context): pass
    def read(self, offset, buffers): pass
"""
    install(place, "odd", source + DRIVER.format("block(create=Zeroes)"))
    (found,) = (f for f in check("odd", {}) if f.subject == "odd driver")
    assert (found.level, found.text) == (Level.GOOD, "opens, and is closed again")
