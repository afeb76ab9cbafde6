"""The sandbox of a device's process (``sandbox=``): what the device could be made to do is tried from inside it."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.sandbox import confine, landlock
from acrn_dm.pci.function import PciFunction
from acrn_dm.testing import SimMachine
from tests.backends.helper import naughty
from tests.backends.helper.helper_rig import answer, child, sim
from tests.base.sandbox.sandbox_rig import needs_all
from tests.contract.plugins.installed import install

MODES = ["off", "on", "strict"]
SLEEP = "/bin/sleep"


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The naughty plugin is found by the device's process as every other is."""
    install(tmp_path / "site", "naughty", "", target=naughty.__name__, devices=["naughty"])
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The file of another device."""
    path = tmp_path / "other.img"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "listener"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        yield path


def ordered(mode: str, *orders: str, options: str = "") -> list[str]:
    """What the device says to each of *orders*."""
    with SimMachine(plugins=[naughty]) as machine:
        machine.add("naughty", f"{options}process=on,restart=never,sandbox={mode}", slot=3)
        driver = machine.driver(3)
        driver.start()
        said = []
        for order in orders:
            driver.queue(0).send([order.encode()], [200])
            driver.queue(0).kick()
            said.append(answer(machine, driver).data.rstrip(b"\xa5").decode())
        return said


@needs_all
@pytest.mark.parametrize(
    ("mode", "read", "rest"), [("off", "ok", "ok"), ("on", "EACCES", "EPERM"), ("strict", "EACCES", "EPERM")]
)
def test_device_reaches_no_files_sockets_and_processes(
    mode: str, read: str, rest: str, other: Path, listener: Path
) -> None:
    orders = [f"read {other}", f"write {other}", f"connect {listener}", "fork", "kill"]
    assert ordered(mode, *orders) == [read, rest, rest, rest, rest]
    assert other.read_bytes() == (b"" if mode == "off" else b"x")


@needs_all
@pytest.mark.parametrize("order", [f"execute {SLEEP}", "trace"])
def test_device_executes_and_traces_nothing(order: str) -> None:
    assert ordered("on", order) == ["EPERM"]


@needs_all
@pytest.mark.parametrize("order", [f"execute {SLEEP}", "trace"])
def test_process_that_tries_it_in_a_strict_sandbox_is_ended_and_the_end_is_told(order: str) -> None:
    with SimMachine(plugins=[naughty]) as machine:
        function = machine.add("naughty", "process=on,restart=never,sandbox=strict", slot=3)
        driver = machine.driver(3)
        driver.start()
        pid = child(function).pid
        driver.queue(0).send([order.encode()], [200])
        driver.queue(0).kick()
        failure = failed(machine)
        machine.failures.clear()
    assert failure == (
        f"naughty-3:0: in a process of its own: process {pid} was ended by {signal.SIGSYS.name}: "
        "it called what its sandbox forbids; it is not started again (restart=never)"
    )


def failed(machine: SimMachine) -> str:
    until = time.monotonic() + 60
    while not machine.failures:
        assert time.monotonic() < until
        machine.settle()
        time.sleep(0.01)
    return str(machine.failures[0][1])


@needs_all
def test_execution_works_without() -> None:
    """Or the refusals would show nothing: the process is another program by then."""
    with SimMachine(plugins=[naughty]) as machine:
        function: PciFunction = machine.add("naughty", "process=on,restart=never,sandbox=off", slot=3)
        driver = machine.driver(3)
        driver.start()
        driver.queue(0).send([f"execute {SLEEP}".encode()], [200])
        driver.queue(0).kick()
        present = child(function).process
        until = time.monotonic() + 60
        while not Path(f"/proc/{present.pid}/cmdline").read_bytes().startswith(SLEEP.encode()):
            assert time.monotonic() < until
            machine.settle()
            time.sleep(0.01)
        present.kill()
        failed(machine)
        machine.failures.clear()


@needs_all
def test_device_reaches_what_it_names_and_nothing_beside(other: Path, tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.write_bytes(b"x")
    said = ordered("strict", f"read {named}", f"told {other}", options=f"named={named},")
    assert said == ["ok", f"reading {other}: Permission denied (EACCES); sandbox=strict may be why"]


def test_strict_one_lacks_what_the_kernel_does(monkeypatch: pytest.MonkeyPatch, other: Path) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    lines = []
    for mode in MODES:
        machine = sim()
        lines.append(machine.add("virtio-blk", f"nodisk,process=on,sandbox={mode}", slot=3).check())
        machine.close()
    assert lines == [[], [], [f"virtio-blk-3:0: sandbox=strict: {confine.lacking()[0]}"]]
