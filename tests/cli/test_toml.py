"""acrn_dm.cli.toml: files that say the same as command lines, and what overrides what."""

from pathlib import Path

import pytest

from acrn_dm.cli import toml
from acrn_dm.cli.arguments import understood
from acrn_dm.cli.grammar import Table
from acrn_dm.cli.option_table import OPTIONS
from acrn_dm.cli.session import plugin_choice
from acrn_dm.machine.resolve import resolve_devices
from tests.cli.fakes import Cli


def write(tmp_path: Path, text: str, name: str = "vm.toml") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


EQUIVALENT = [
    ('name = "vm"\nmemsize = "2G"', ["-m", "2G", "vm"]),
    ('name = "vm"\nmemsize = 512', ["-m", "512", "vm"]),
    ('name = "vm"\ncpus = 2\nkernel = "/k"\nramdisk = "/r"\nbootargs = "a b"',
     ["--cpus", "2", "-k", "/k", "-r", "/r", "-B", "a b", "vm"]),
    ('name = "vm"\nelf_file = "/e"', ["-E", "/e", "vm"]),
    ('name = "vm"\nelf-file = "/e"', ["-E", "/e", "vm"]),
    ('name = "vm"\ncpu_affinity = [4, 6]', ["--cpu_affinity", "4,6", "vm"]),
    ('name = "vm"\ncpu_affinity = "4,6"', ["--cpu_affinity", "4,6", "vm"]),
    ('name = "vm"\nwindows = true\nvirtio_msi = true\ndebugexit = true\nvirtio_poll = 1000000',
     ["--windows", "--virtio_msi", "--debugexit", "--virtio_poll", "1000000", "vm"]),
    ('name = "vm"\nwindows = false', ["vm"]),
    ('name = "vm"\nhypervisor = "kvm"\nallow-slow-kvm = true\nshutdown-timeout = 2.5',
     ["--hypervisor", "kvm", "--allow-slow-kvm", "--shutdown-timeout", "2.5", "vm"]),
    ('name = "vm"\npci_slot = ["0:0,hostbridge", "3,virtio-blk,/a,ro"]',
     ["-s", "0:0,hostbridge", "-s", "3,virtio-blk,/a,ro", "vm"]),
    ('name = "vm"\n[[device]]\nslot = "0:0"\ntype = "hostbridge"\n'
     '[[device]]\nslot = 3\ntype = "virtio-blk"\noptions = "/a,ro"\nboot = true',
     ["-s", "0:0,hostbridge", "-s", "3,virtio-blk,b,/a,ro", "vm"]),
    ('name = "vm"\nlpc = "com1,stdio"', ["-l", "com1,stdio", "vm"]),
    ('name = "vm"\n[[uart]]\nport = "com1"\nbackend = "stdio"\n[[uart]]\nport = 2\nbackend = "tcp:5000"',
     ["-l", "com1,stdio", "-l", "com2,tcp:5000", "vm"]),
    ('name = "vm"\n[[uart]]\nport = "COM5"\nbackend = "/dev/pts/1"\nio_base = 0x9000\nirq = 5',
     ["-l", "com5,/dev/pts/1,0x9000,5", "vm"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "args"), EQUIVALENT)
def test_file_gives_the_machine_of_the_same_command_line(cli: Cli, tmp_path: Path, text: str, args: list[str]) -> None:
    assert cli.config("--config", write(tmp_path, text)) == cli.config(*args)


def test_device_options_as_keys_are_the_device_of_the_same_text(cli: Cli, tmp_path: Path) -> None:
    table = 'type = "virtio-blk"\npath = "/a"\nro = true\nmq = 2\nsectorsize = "512/4096"'
    file = write(tmp_path, f'name = "vm"\n[[device]]\nslot = "3"\n{table}')
    assert resolved(cli, "--config", file) == resolved(cli, "-s", "3,virtio-blk,mq=2,/a,ro,sectorsize=512/4096", "vm")


def resolved(cli: Cli, *args: str) -> list[object]:
    config = cli.config(*args)
    assert cli.machine is not None
    return [(d.type.name, d.options) for d in resolve_devices(config, cli.machine.plugins)]


def test_command_line_overrides_the_file(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, 'name = "a"\nmemsize = "2G"\nbootargs = "x"\nhypervisor = "kvm"')
    config = cli.config("--config", file, "-m", "1G", "b")
    assert (config.name, config.memory_bytes, config.bootargs, config.hypervisor) == ("b", 1 << 30, "x", "kvm")


def test_later_file_overrides_an_earlier_one(cli: Cli, tmp_path: Path) -> None:
    first = write(tmp_path, 'name = "a"\nmemsize = "2G"\nwindows = true', "1.toml")
    second = write(tmp_path, 'memsize = "1G"\nwindows = false', "2.toml")
    config = cli.config("--config", first, "--config", second)
    assert (config.name, config.memory_bytes, config.windows) == ("a", 1 << 30, False)


def test_device_on_the_command_line_replaces_the_one_in_its_slot(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, 'name = "a"\npci_slot = ["0,hostbridge", "3,virtio-blk,/old", "4,virtio-net,tap=t"]')
    config = cli.config("--config", file, "-s", "3,toy", "-s", "5,toy")
    assert [(d.bdf.slot, d.kind) for d in config.devices] == [
        (0, "hostbridge"), (4, "virtio-net"), (3, "toy"), (5, "toy"),
    ]  # fmt: skip


def test_uart_on_the_command_line_replaces_the_one_of_its_number(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, 'name = "a"\nlpc = ["com1,stdio", "com2,tcp:1"]')
    config = cli.config("--config", file, "-l", "com2,tcp:2")
    assert [(u.number, u.backend) for u in config.uarts] == [(1, "stdio"), (2, "tcp:2")]


def test_affinity_on_the_command_line_overrides_the_count_in_the_file(cli: Cli, tmp_path: Path) -> None:
    config = cli.config("--config", write(tmp_path, 'name = "a"\ncpus = 4'), "--cpu_affinity", "0,2")
    assert (config.vcpus, config.cpu_affinity) == (2, (0, 2))


def test_obsolete_key_warns_and_names_the_file(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, 'name = "a"\nacpi = true\nmptgen = false\niasl = "/usr/bin/iasl"')
    code, _, err = cli("--config", file)
    assert code == 0
    assert [line.split(": ")[1:4] for line in err.splitlines()] == [
        ["warning", file, "acpi"], ["warning", file, "iasl"],
    ]  # fmt: skip


def test_file_chooses_the_plugins_unless_the_command_line_does(tmp_path: Path) -> None:
    table = Table(OPTIONS)
    documents = [toml.read(Path(write(tmp_path, 'plugins = ["a", "b"]\nnot-looked-at-yet = 1')))]
    assert plugin_choice([], documents, table) == {"only": ("a", "b")}
    assert plugin_choice(understood(["--no-plugins"], table), documents, table) == {"entry_points": False}
    assert plugin_choice(understood(["--plugins", "c"], table), documents, table) == {"only": ("c",)}
    assert plugin_choice([], [], table) == {"only": None}


def test_environment_chooses_plugins_where_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(OPTIONS)
    monkeypatch.setenv("ACRN_DM_PLUGINS", "no:slow")
    assert plugin_choice([], [], table)["selection"].without == {"slow"}
    assert plugin_choice(understood(["--plugins", "c"], table), [], table) == {"only": ("c",)}
    assert plugin_choice(understood(["--no-plugins"], table), [], table) == {"entry_points": False}
    assert plugin_choice(understood(["--plugins", "list"], table), [], table)["selection"].without == {"slow"}


def test_plugins_to_leave_out_are_told_from_those_to_load() -> None:
    table = Table(OPTIONS)
    assert plugin_choice(understood(["--plugins", "no:a,no:b"], table), [], table)["selection"].without == {"a", "b"}
