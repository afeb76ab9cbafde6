"""acrn_dm.cli.shown.help: texts made from the tables."""

import json

import pytest

from acrn_dm.cli.option_table import OPTIONS
from acrn_dm.machine.resolve import ORIGINAL_DEVICES
from tests.cli.fakes import Cli


@pytest.mark.parametrize("args", [["-h"], ["--help"], ["--he"], ["-h", "--no-such-option"], ["-m", "512", "-h", "vm"]])
def test_help_is_on_stdout_and_names_every_option(cli: Cli, args: list[str]) -> None:
    code, out, err = cli(*args)
    assert (code, err) == (0, "")
    assert [o.usage for o in OPTIONS if f"  {o.usage}" not in out] == []
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize("text", ["Exit codes", "Examples", "64  the command line", "78  what it asks", "[[device]]"])
def test_help_teaches(cli: Cli, text: str) -> None:
    assert text in cli("--help")[1]


@pytest.mark.parametrize("args", [["-v"], ["--version"], ["-v", "-h"], ["-v", "--nonsense"]])
def test_version_is_one_line(cli: Cli, args: list[str]) -> None:
    code, out, err = cli(*args)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert out.startswith("DM: acrn-dm ")


def test_help_before_version_is_help(cli: Cli) -> None:
    assert cli("-h", "-v")[1].startswith("Usage:")


def test_device_list_has_names_providers_and_what_is_not_there(cli: Cli) -> None:
    code, out, err = cli("-s", "help")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "  toy, plaything              a toy for tests [plugin fakes (given by the caller)]" in lines
    assert "  virtio-net                  network card on a tap [plugin devices.virtio_net (built in)]" in lines
    assert "  passthru" in lines[lines.index("Emulations of the original that are missing: no plugin provides them") :]
    assert sum("plaything" in line for line in lines) == 1


@pytest.mark.parametrize("name", sorted(ORIGINAL_DEVICES))
def test_missing_emulation_is_named_and_no_distribution_suggested(cli: Cli, name: str) -> None:
    """A distribution that nobody has made is one that anybody could register."""
    _, out, _ = cli("-s", "help")
    code, _, err = cli("-s", f"7,{name}", "vm")
    assert (code, err) == (
        78,
        f"acrn-dm: -s 7,{name}: the original's emulation of {name!r} is missing: no plugin provides it\n",
    )
    assert f"\n  {name}\n" in f"{out}\n"
    assert "acrn-dm-" not in out


def test_device_help_has_options_with_defaults_and_grammar(cli: Cli) -> None:
    code, out, err = cli("-s", "toy,help")
    assert (code, err) == (0, "")
    assert "Usage: -s SLOT,toy,OPTION[=VALUE]..." in out
    assert "  size=N                      How much of it. [4]" in out.splitlines()
    assert "  loud                        Say so. [off]" in out.splitlines()
    assert "Values; on the command line a comma in a value is written twice: path=/a,,b is /a,b" in out.splitlines()
    assert "  N                           a whole number: 12, 0xc, 0o14 or 0b1100" in out.splitlines()


def test_device_help_of_the_disk_has_all_its_options(cli: Cli) -> None:
    out = cli("-s", "virtio-blk,help")[1]
    for name in ("iothread", "mq", "cache", "ro", "nocache", "discard", "sectorsize", "range", "aio"):
        assert f"\n  {name}" in out
    assert "IoThreads" not in out
    assert "PATH[,OPTION...]" in out


def test_device_without_options_says_so(cli: Cli) -> None:
    assert "It has no options." in cli("-s", "lpc,help")[1]


def test_help_of_an_unknown_device_is_a_configuration_error(cli: Cli) -> None:
    code, out, err = cli("-s", "virtio-blq,help")
    assert (code, out) == (78, "")
    assert "did you mean 'virtio-blk'?" in err


def test_hypervisor_list_says_which_can_be_used(cli: Cli) -> None:
    code, out, err = cli("--hypervisor", "help")
    assert (code, err) == (0, "")
    assert "  kvm                         Linux KVM; no /dev/kvm here" in out.splitlines()
    assert "  sim                         in this process; usable here; by name only" in out.splitlines()


def test_help_in_a_value_is_no_request_for_help(cli: Cli) -> None:
    assert cli("-B", "--help", "-k", "/k", "vm")[0] == 0
    assert cli("-s", "3,virtio-blk,help", "vm")[1] == ""


def test_device_list_has_the_drivers(cli: Cli) -> None:
    lines = cli("-s", "help")[1].splitlines()
    block = lines.index("Block drivers; 'driver=NAME' among a disk's options executes its requests")
    packet = lines.index("Packet drivers; 'driver=NAME' among a card's options carries its frames")
    assert any(line.startswith("  threads                     raw image") for line in lines[block:packet])
    assert "  tap                         tap or macvtap of the host's [plugin devices.virtio_net (built in)]" in lines


def test_help_on_a_device_has_its_drivers(cli: Cli) -> None:
    _, out, _ = cli("-s", "virtio-net,help")
    assert "Drivers; '-s virtio-net,driver=NAME,help' shows the options of one" in out
    assert "  tap   " in out
    assert "  threads   " not in out


def test_help_on_a_driver_has_its_options_and_what_the_device_keeps(cli: Cli) -> None:
    code, out, _ = cli("-s", "virtio-blk,driver=threads,help")
    assert code == 0
    assert "Usage: -s SLOT,virtio-blk,driver=threads,OPTION[=VALUE]..." in out
    assert "  path=PATH                   Raw image or block device. [required]" in out
    kept = out.partition("Of the device")[2]
    assert "werror" in kept
    assert "nocache" not in kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("virtio-blk,driver=thread,help", "there is no block driver 'thread'; did you mean 'threads'?"),
        ("toy,driver=x,help", "the device has no drivers"),
    ],
)
def test_help_on_a_driver_that_is_none_says_so(cli: Cli, text: str, said: str) -> None:
    code, _, err = cli("-s", text)
    assert code == 78
    assert said in err


def test_driver_is_described_as_json(cli: Cli) -> None:
    shown = json.loads(cli("-s", "virtio-blk,driver=threads,help", "--json")[1])
    assert shown["name"] == "threads"
    assert {option["name"] for option in shown["options"]} >= {"path", "nocache", "range", "share"}
    every = json.loads(cli("-s", "help", "--json")[1])
    assert {driver["name"] for driver in every["block_drivers"]} >= {"file", "io_uring", "threads", "python"}
    assert "tap" in {driver["name"] for driver in every["packet_drivers"]}
