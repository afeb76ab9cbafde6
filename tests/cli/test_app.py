"""acrn_dm.cli.app: exit codes, dry runs, warnings, plugins' options, signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.cli import main
from acrn_dm.cli.session import SWITCH_INTERVAL_S
from acrn_dm.contract.interrupt_monitor import InterruptMonitor
from tests.cli.fakes import Cli, FakeMachine, NoOptions, Reason, device_type, managing, plugin

VM = ("-k", "/boot/vmlinuz", "vm")


def test_guest_powered_off_is_0_and_everything_is_closed(cli: Cli) -> None:
    assert cli(*VM) == (0, "", "")
    assert cli.machine is not None
    assert cli.machine.calls == ["check", "realize", "run", "close"]


def test_guest_that_can_not_go_on_is_1_and_says_why(cli: Cli) -> None:
    cli.machine_options = {"outcome": Reason.ERROR, "detail": "triple fault"}
    assert cli(*VM) == (1, "", "acrn-dm: the guest can't go on: triple fault\n")


def test_host_error_is_1_and_everything_is_closed(cli: Cli) -> None:
    cli.machine_options = {"outcome": HostError("opening /dev/x", err=2, hint="load its module")}
    code, _, err = cli(*VM)
    assert (code, err) == (1, "acrn-dm: opening /dev/x: No such file or directory (ENOENT); load its module\n")
    assert cli.machine is not None
    assert cli.machine.calls[-1] == "close"


def test_bug_is_2_in_one_line_with_the_way_to_the_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.machine_options = {"outcome": ZeroDivisionError("two\nlines")}
    code, _, err = cli(*VM)
    expected = "acrn-dm: internal error: ZeroDivisionError: two lines; set ACRN_DM_TRACEBACK=1 to see where\n"
    assert (code, err) == (2, expected)
    monkeypatch.setenv("ACRN_DM_TRACEBACK", "1")
    code, _, err = cli(*VM)
    assert code == 2
    assert "Traceback" in err


def test_interrupt_before_the_guest_runs_is_1(cli: Cli) -> None:
    cli.machine_options = {"outcome": KeyboardInterrupt()}
    assert cli(*VM) == (1, "", "acrn-dm: interrupted\n")


def test_what_is_missing_keeps_the_guest_from_starting(cli: Cli) -> None:
    cli.machine_options = {"missing": ["no kernel", "no tap"]}
    assert cli(*VM) == (78, "", "acrn-dm: no kernel\nacrn-dm: no tap\n")
    assert cli.machine is not None
    assert cli.machine.calls == ["check", "close"]


def test_dry_run_shows_the_machine_and_opens_nothing(cli: Cli) -> None:
    code, out, err = cli("--dry-run", "-m", "3G", "-s", "3,virtio-blk,/a", "-l", "com1,stdio", *VM)
    assert (code, err) == (0, "")
    assert "0x0..0x7fffffff (2 GiB), 0x100000000..0x13fffffff (1 GiB)" in out
    assert cli.machine is not None
    assert cli.machine.calls == ["check", "close"]


def test_dry_run_with_something_missing_shows_the_machine_too(cli: Cli) -> None:
    cli.machine_options = {"missing": ["no kernel"]}
    code, out, err = cli("--dry-run", *VM)
    assert (code, err) == (78, "acrn-dm: no kernel\n")
    assert "machine     vm" in out


def test_dry_run_as_json_is_one_object(cli: Cli) -> None:
    cli.machine_options = {"missing": ["no kernel"]}
    _, out, _ = cli("--dry-run", "--json", "-s", "3,toy", *VM)
    shown = json.loads(out)
    assert shown["missing"] == ["no kernel"]
    assert [(d["bdf"], d["kind"], d["bars"][0]["address"]) for d in shown["devices"]] == [("0:3.0", "toy", 1 << 38)]


def test_obsolete_and_platform_options_warn_in_one_line_each(cli: Cli) -> None:
    args = ["-A", "-Y"]
    for name in ("-G", "-i", "--mac_seed", "--vsbl", "--part_info", "--pm_by_vuart", "--iasl"):
        args += [name, "x"]
    args += ["--pm_notify_channel", "ioc"]
    args += ["--ssram", "L2,vcpu=all,size=4K", "-s", "2,pci-gvt", "-s", "6,npk", "-s", "7,virtio-hdcp"]
    code, _, err = cli(*args, "-s", "8,virtio-coreu", *VM)
    assert code == 0
    lines = err.splitlines()
    assert len(lines) == 15
    assert all(line.startswith("acrn-dm: warning: -") for line in lines)
    assert cli.machine is not None
    assert cli.machine.config.devices == ()


def test_options_of_the_hypervisor_are_part_of_the_machine(cli: Cli) -> None:
    args = ["--rtvm", "--lapic_pt", "--enable_trusty", "--intr_monitor", "10000,10,1,100", "--hugepages", "on"]
    config = cli.config(*args, *VM)
    assert (config.rtvm, config.lapic_pt, config.enable_trusty, config.hugepages) == (True, True, True, "on")
    assert config.interrupt_monitor == InterruptMonitor(threshold=10000, period_s=10, delay_ms=1, duration_ms=100)


def test_option_given_twice_warns_once(cli: Cli) -> None:
    assert cli("-A", "-A", *VM)[2].count("\n") == 1


def test_obsolete_device_that_a_plugin_provides_is_used(cli: Cli) -> None:
    cli.extra = (plugin("old", acrn_dm_device_types=lambda: [device_type("npk", NoOptions)]),)
    assert [d.kind for d in cli.config("-s", "3,npk", *VM).devices] == ["npk"]


def test_affinity_gives_the_number_of_cpus(cli: Cli) -> None:
    config = cli.config("--cpu_affinity", "64,66", *VM)
    assert (config.vcpus, config.cpu_affinity) == (2, (64, 66))
    assert cli.config("--cpu_affinity", "64,66", "--cpus", "2", *VM) == config


def test_last_use_of_an_option_counts(cli: Cli) -> None:
    assert cli.config("-m", "1G", "--memsize=2G", *VM).memory_bytes == 2 << 30


def test_plugin_options_are_parsed_and_have_defaults(cli: Cli, tmp_path: Path) -> None:
    def add(parser: Any) -> None:
        parser.add_option("trace-file", help="where to", metavar="PATH", default="/tmp/t")
        parser.add_option("--trace", help="trace it")

    cli.extra = (plugin("tracer", acrn_dm_add_options=add),)
    assert cli.config(*VM).plugin_options == {"trace-file": "/tmp/t", "trace": False}
    assert cli.config("--trace", "--trace-f=/x", *VM).plugin_options == {"trace-file": "/x", "trace": True}
    file = tmp_path / "vm.toml"
    file.write_text('trace = true\ntrace_file = "/y"\n')
    assert cli.config("--config", str(file), *VM).plugin_options == {"trace-file": "/y", "trace": True}
    assert "--trace-file PATH" in cli("--help")[1]


@pytest.mark.parametrize("name", ["memsize", "dry_run", "Bad", "", "name", "-x", "a b"])
def test_plugin_with_a_bad_option_is_named(cli: Cli, name: str) -> None:
    cli.extra = (plugin("rogue", acrn_dm_add_options=lambda parser: parser.add_option(name, help="")),)
    code, _, err = cli(*VM)
    assert code == 0
    assert err.count("\n") == 1
    assert err.startswith("acrn-dm: warning: not loaded: plugin rogue (given by the caller): acrn_dm_add_options: ")


def test_fault_of_a_plugin_is_told_before_the_machine_that_does_without_it(cli: Cli) -> None:
    cli.extra = (plugin("rogue", acrn_dm_device_types=lambda: 1 / 0),)
    code, _, err = cli(*VM)
    assert (code, err.count("\n")) == (0, 1)
    assert "warning: not loaded: plugin rogue (given by the caller): acrn_dm_device_types: ZeroDivisionError" in err


def test_device_that_nobody_has_names_what_was_left_out(cli: Cli) -> None:
    cli.extra = (plugin("rogue", acrn_dm_device_types=lambda: 1 / 0),)
    code, _, err = cli("-s", "3,odd", *VM)
    assert code == 78
    assert "there is no device 'odd'" in err.splitlines()[-1]
    assert "left out: plugin rogue" in err.splitlines()[-1]


def test_plugin_whose_grammar_raises_is_named(cli: Cli) -> None:
    class Broken:
        @classmethod
        def from_string(cls, text: str) -> None:
            raise KeyError(text)

    cli.extra = (plugin("rogue", acrn_dm_device_types=lambda: [device_type("odd", Broken)]),)
    code, _, err = cli("-s", "3,odd,x", *VM)
    assert (code, err) == (1, "acrn-dm: plugin rogue (given by the caller): odd: KeyError: 'x'\n")


def test_signals_press_the_power_button_and_are_given_back(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: FakeMachine) -> Reason:
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGWINCH):
            os.kill(os.getpid(), number)
        return Reason.POWEROFF

    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGWINCH)]
    interval = sys.getswitchinterval()
    monkeypatch.setattr(FakeMachine, "run", run)
    assert cli(*VM)[0] == 0
    assert cli.machine is not None
    assert cli.machine.calls == ["check", "realize", *["power button"] * 3, "window", "close"]
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGWINCH)] == before
    assert sys.getswitchinterval() == pytest.approx(interval)


def test_stdout_that_is_full_is_an_error_and_a_closed_pipe_is_not(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    class Stdout:
        encoding = "utf-8"

        def __init__(self, error: OSError) -> None:
            self.error = error

        def write(self, text: str) -> int:
            raise self.error

        def flush(self) -> None: ...

        def fileno(self) -> int:
            raise OSError

    monkeypatch.setattr(sys, "stdout", Stdout(BrokenPipeError()))
    assert main(["-v"], make_manager=managing()) == 0
    monkeypatch.setattr(sys, "stdout", Stdout(OSError(28, "No space left on device")))
    assert main(["-v"], make_manager=managing()) == 1
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_standard_files_that_are_closed_are_not_given_to_anything_else(closed: tuple[int, ...]) -> None:
    """The next file opened would get the number, a disk image say, and the guest's console would be written to it."""
    script = (
        "import os, sys; from acrn_dm.cli.app import main\n"
        f"for fd in {closed}: os.close(fd)\n"
        "main(['--no-plugins', '-s', 'nosuch,help'])\n"
        f"os._exit(all(os.readlink(f'/proc/self/fd/{{fd}}') == '/dev/null' for fd in {closed}) and 42)"
    )
    run = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, capture_output=True)
    assert run.returncode == 42


def test_guest_memory_in_core_dumps_can_be_asked_for_in_a_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    for text, expected in (('dump_guest_core = "on"', True), ('dump-guest-core = "off"', False), ("", False)):
        file.write_text(text)
        assert cli.config("--config", str(file), "vm").dump_guest_core is expected


def test_guest_memory_in_core_dumps_is_on_or_off(cli: Cli) -> None:
    code, _, err = cli("--dump-guest-core", "maybe", "vm")
    assert (code, err) == (64, "acrn-dm: --dump-guest-core: 'maybe': expected on or off\n")
