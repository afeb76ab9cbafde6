"""The start of acrn_dm.cli: which modules it imports, for ``--version`` and for a machine with four devices.

Not how long it takes, which no loaded machine tells: what is heavy comes in by an import.
"""

import subprocess
import sys
from pathlib import Path

import pytest

TELL = "import sys; print(*sys.modules, sep='\\n')"

# A machine until its hypervisor is opened: no kernel and no tap are needed by then.
MACHINE = """
import os, sys
from acrn_dm import hookimpl
from acrn_dm.cli import main

class Hypervisor:
    @hookimpl
    def acrn_dm_hypervisor_types(self):
        from acrn_dm import HypervisorType
        return [HypervisorType(name="asked", summary="", probe=lambda: None, open=tell)]

def tell(options):
    import linecache
    print(*sys.modules, *linecache.cache, sep="\\n", flush=True)
    os._exit(0)

def make(**choice):
    from acrn_dm.contract.plugins import make_plugin_manager
    return make_plugin_manager(extra=[Hypervisor()], **choice)

def build(config, plugins):
    from acrn_dm.machine import build, machine
    machine.Machine.check = lambda self: []
    return build.build(config, plugins)

main(sys.argv[1:], make_manager=make, build=build)
"""
FOUR = ["2,virtio-net,tap=tap0", "3,virtio-blk,disk.img", "4,virtio-console,@file:out=console.log", "5,virtio-rnd"]

# What a start does without: each once took more than a millisecond.
HEAVY = {
    *(
        "argparse",
        "asyncio",
        "csv",
        "ctypes",
        "dataclasses",
        "datetime",
        "difflib",
        "email",
        "hashlib",
        "_hashlib",
        "json",
    ),
    *("logging.handlers", "multiprocessing", "pickle", "selectors", "socket", "subprocess", "tempfile", "tomllib"),
    *("hypothesis", "importlib.metadata", "importlib.resources", "pkg_resources", "pytest", "setuptools", "zipfile"),
}
OTHER_BRANCHES = {
    "acrn_dm.backends.kernel.backend",
    "acrn_dm.backends.user.backend",
    "acrn_dm.boot.elf",
    "acrn_dm.boot.multiboot",
    "acrn_dm.boot.ovmf",
    "acrn_dm.cli.shown.help",
    "acrn_dm.cli.shown.report",
    "acrn_dm.devices.i440fx",
    "acrn_dm.devices.lpc",
    "acrn_dm.devices.platform.fw_cfg",
    "acrn_dm.devices.uart.port",
    "acrn_dm.hypervisors.acrn.vm",
    "acrn_dm.hypervisors.kvm.vm",
    "acrn_dm.hypervisors.sim.vm",
    "acrn_dm.machine.firmware.support",
    "acrn_dm.machine.report",
    "acrn_dm.management.command_monitor",
    "acrn_dm.ring.driver",
    "acrn_dm.testing",
    "acrn_dm.virtio.strict.registers",
    "acrn_dm_replay.script",
    "acrn_dm_replay.vm",
}
VERSION = {
    *("acrn_dm", "acrn_dm.base", "acrn_dm.base._libc", "acrn_dm.base.errors", "acrn_dm.base.files"),
    *("acrn_dm.base.files.installed", "acrn_dm.base.process", "acrn_dm.base.process.collector"),
    *("acrn_dm.base.process.privileges", "acrn_dm.cli", "acrn_dm.cli.app", "acrn_dm.cli.output", "acrn_dm.cli.version"),
}
COMPILED = 4  # classes of this package that attrs makes, each in half a millisecond
MOST = 340  # modules of this package, and those of plugins, in a machine with four devices


def modules(script: str, *args: str, cwd: Path | None = None) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", script, *args], check=True, timeout=60, capture_output=True, text=True, cwd=cwd
    )
    return set(run.stdout.split("\n")) - {""}


@pytest.fixture(scope="module")
def before() -> set[str]:
    """What the interpreter has by itself, with the environment's own hooks."""
    return modules(TELL)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("start")
    (folder / "disk.img").write_bytes(bytes(1 << 20))
    slots = [word for text in FOUR for word in ("-s", text)]
    return modules(MACHINE, "--hypervisor", "asked", *slots, "-k", "bzImage", "vm", cwd=folder)


def test_version_is_shown_without_plugins_options_and_attrs(before: set[str]) -> None:
    found = modules(f"import sys; sys.argv[1:] = ['--version']; from acrn_dm.cli import main; main(); {TELL}") - before
    assert {name for name in found if name.startswith("acrn_dm")} == VERSION
    assert found & {"attr", "pluggy", "logging", "typing"} == set()


def test_four_devices_are_started_without_what_is_heavy(before: set[str], machine: set[str]) -> None:
    assert machine & HEAVY - before == set()


def test_four_devices_are_started_without_the_branches_that_they_do_not_take(machine: set[str]) -> None:
    assert machine & OTHER_BRANCHES == set()


def test_four_devices_are_started_with_their_plugins_only(machine: set[str]) -> None:
    waiting = {"acrn_dm_balloon", "acrn_dm_gpio", "acrn_dm_i2c", "acrn_dm_input", "acrn_dm_vsock"}
    waiting |= {"acrn_dm_blk_faults", "acrn_dm_net_loop", "acrn_dm_ram_disk"}
    assert ("acrn_dm_rng" in machine, machine & waiting) == (True, set())


def test_four_devices_are_started_with_no_more_modules_than_ever(machine: set[str]) -> None:
    assert len([name for name in machine if name.partition(".")[0].startswith("acrn_dm")]) <= MOST


def test_four_devices_are_started_with_few_classes_that_are_compiled(machine: set[str]) -> None:
    assert len([name for name in machine if name.startswith("<attrs generated methods acrn_dm.")]) <= COMPILED
