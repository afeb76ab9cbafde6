"""acrn_dm.cli.arguments and .grammar: the grammar of GNU getopt_long, and abbreviations that stay what they were."""

from collections.abc import Sequence

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.cli.arguments import parse_arguments, understood
from acrn_dm.cli.grammar import Group, Option, Table
from acrn_dm.cli.option_table import OPTIONS

TABLE = Table(OPTIONS)

# The original's long options with the argument that each takes.
ORIGINAL = {
    "acpi": False, "elf_file": True, "ioc_node": True, "lpc": True, "pci_slot": True, "memsize": True, "mptgen": False,
    "kernel": True, "ramdisk": True, "bootargs": True, "version": False, "gvtargs": True, "help": False,
    "mac_seed": True, "vsbl": True, "ovmf": True, "iasl": True, "cpu_affinity": True, "part_info": True,
    "enable_trusty": False, "virtio_poll": True, "debugexit": False, "intr_monitor": True, "cmd_monitor": True,
    "acpidev_pt": True, "mmiodev_pt": True, "vtpm2": True, "lapic_pt": False, "rtvm": False, "ssram": True,
    "logger_setting": True, "pm_notify_channel": True, "pm_by_vuart": True, "windows": False, "virtio_msi": False,
}  # fmt: skip


def parse(args: Sequence[str], table: Table = TABLE) -> tuple[list[tuple[str, object]], list[str]]:
    settings, names = parse_arguments(args, table)
    return [(s.option.name, s.value) for s in settings], names


def test_table_has_every_option_of_the_original_and_says_which_take_arguments() -> None:
    assert {o.name: o.metavar is not None for o in OPTIONS if o.original} == ORIGINAL


@pytest.mark.parametrize("name", ORIGINAL)
def test_abbreviation_unique_among_the_original_options_means_what_it_meant(name: str) -> None:
    for length in range(1, len(name) + 1):
        prefix = name[:length]
        if prefix == name or sum(other.startswith(prefix) for other in ORIGINAL) == 1:
            args = [f"--{prefix}"] + (["x"] if ORIGINAL[name] else [])
            assert parse(args)[0] == [(name, "x" if ORIGINAL[name] else True)], prefix


def test_abbreviation_survives_a_plugin_option_with_the_same_prefix() -> None:
    extra = Option(name="kernel-trace", help="", group=Group.PLUGIN, original=False)
    assert parse(["--ker", "x"], Table((*OPTIONS, extra)))[0] == [("kernel", "x")]
    assert parse(["--kernel-t"], Table((*OPTIONS, extra)))[0] == [("kernel-trace", True)]


@pytest.mark.parametrize(
    ("args", "settings"),
    [
        (["-m", "512"], [("memsize", "512")]),
        (["-m512"], [("memsize", "512")]),
        (["--memsize=512"], [("memsize", "512")]),
        (["--memsize", "512"], [("memsize", "512")]),
        (["--memsize="], [("memsize", "")]),
        (["-AYm512"], [("acpi", True), ("mptgen", True), ("memsize", "512")]),
        (["-B", "-h"], [("bootargs", "-h")]),
        (["-B", "--", "-A"], [("bootargs", "--"), ("acpi", True)]),
        (["--conf=x"], [("config", "x")]),
        (["--dry"], [("dry-run", True)]),
        (["-s", "1,a", "-s", "2,b"], [("pci_slot", "1,a"), ("pci_slot", "2,b")]),
    ],
)
def test_options_are_read_as_getopt_long_does(args: list[str], settings: list[tuple[str, object]]) -> None:
    assert parse(args) == (settings, [])


def test_options_and_name_come_in_any_order() -> None:
    assert parse(["vm", "-m", "512", "--windows"]) == ([("memsize", "512"), ("windows", True)], ["vm"])
    assert parse(["-m", "512", "vm", "--windows"]) == ([("memsize", "512"), ("windows", True)], ["vm"])


def test_everything_behind_two_dashes_is_a_name() -> None:
    assert parse(["-A", "--", "-x"]) == ([("acpi", True)], ["-x"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--virtio"], "--virtio: ambiguous; it could be --virtio_msi, --virtio_poll"),
        (["--frobnicate"], "--frobnicate: there is no such option; see --help"),
        (["--memsice=1"], "did you mean '--memsize'?"),
        (["-x"], "-x: there is no such option"),
        (["-m"], "-m: an argument is missing: SIZE"),
        (["--kernel"], "--kernel: an argument is missing: PATH"),
        (["--windows=yes"], "--windows: takes no argument"),
        (["--=x"], "there is no such option"),
        (["-:"], "there is no such option"),
        (["-U", "1234"], "-U: VM UUIDs were removed"),
        (["-c", "2"], "-c: the number of CPUs is --cpus N"),
    ],
)
def test_malformed_command_line_is_a_usage_error_that_helps(args: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as e:
        parse_arguments(args, TABLE)
    assert e.value.usage
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["--no-plugins", "--foo", "bar"], ["no-plugins"]),
        (["--foo", "--no-plugins"], ["no-plugins"]),
        (["-x", "--plugins", "a", "-m"], ["plugins"]),
        (["-B", "--no-plugins"], ["bootargs"]),
        (["-Axm", "512"], []),
        (["--v", "-h"], ["help"]),
        (["--windows=yes", "-h"], ["help"]),
        (["-U", "x", "-h"], ["help"]),
        ([], []),
    ],
)
def test_unknown_options_are_left_out_when_only_a_look_is_taken(args: list[str], names: list[str]) -> None:
    assert [s.option.name for s in understood(args, TABLE)] == names


def test_look_at_nothing_but_wrong_options_ends() -> None:
    assert understood(["--zz"] * 50 + ["-x"] * 50, TABLE) == []
