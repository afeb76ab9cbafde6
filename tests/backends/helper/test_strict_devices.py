"""Each device that ``process=on`` serves does in a strict sandbox what it does without."""

import os
import pty
import shutil
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import acrn_dm_fast_rng
import acrn_dm_gpio
import acrn_dm_i2c
import acrn_dm_input
import acrn_dm_ram_disk
import acrn_dm_rng
import pytest
from acrn_dm_net_loop import card as loop_card

from acrn_dm.devices import virtio_blk, virtio_console, virtio_net
from acrn_dm.pci.function import PciFunction
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import Completion
from tests.backends.helper.helper_rig import PATIENCE_S, answer, child
from tests.base.sandbox.sandbox_rig import needs_all
from tests.devices.virtio_blk.blk_rig import DISCARD, FLUSH, GET_ID, IN, OUT, WRITE_ZEROES, header, segment
from tests.devices.virtio_net.net_rig import PLAIN, frame

PLUGINS = [
    *(virtio_blk, virtio_console, virtio_net, acrn_dm_rng, acrn_dm_fast_rng),
    *(acrn_dm_gpio, acrn_dm_i2c, acrn_dm_input, acrn_dm_ram_disk, loop_card),
]
LINE = b"from here to there"
pytestmark = needs_all


class Away:
    """A machine with one device in a process of its own, in a strict sandbox, and its driver."""

    def __init__(self, machine: SimMachine, kind: str, options: str) -> None:
        self.machine = machine
        self.function: PciFunction = machine.add(
            kind, f"{options},process=on,sandbox=strict,restart=never".removeprefix(","), slot=3
        )
        self.driver: VirtioDriver = machine.driver(3)

    def start(self, features: int | None = None) -> None:
        self.driver.start(features)
        status = Path(f"/proc/{child(self.function).pid}/status").read_text().splitlines()
        assert "Seccomp:\t2" in status
        assert "CapEff:\t0000000000000000" in status

    def ask(self, out: list[bytes], room: list[int], queue: int = 0) -> Completion:
        self.driver.queue(queue).send(out, room)
        self.driver.queue(queue).kick()
        return answer(self.machine, self.driver, queue)

    def until(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < until, self.machine.failures
            self.machine.settle()
            time.sleep(0.005)


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with SimMachine(plugins=PLUGINS) as made:
        yield made
        assert made.failures == []


@pytest.mark.parametrize("options", ["", ",aio=threads", ",aio=python", ",nocache", ",iops=1000"])
def test_disk(machine: SimMachine, tmp_path: Path, options: str) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    disk(Away(machine, "virtio-blk", f"iothread=2,mq=2,{image},discard{options}"))
    assert image.read_bytes()[4096:8192] == b"w" * 4096


def test_disk_in_memory(machine: SimMachine) -> None:
    disk(Away(machine, "virtio-blk", "driver=ram,size=1M,discard"))


def disk(away: Away) -> None:
    """All that a driver asks of a disk."""
    away.start()
    assert away.ask([header(OUT, 8), b"w" * 4096], [1]).data == b"\0"
    assert away.ask([header(FLUSH)], [1]).data == b"\0"
    assert away.ask([header(IN, 8)], [4096, 1]).data == b"w" * 4096 + b"\0"
    assert away.ask([header(WRITE_ZEROES), segment(16, 8)], [1]).data == b"\0"
    assert away.ask([header(DISCARD), segment(24, 8)], [1]).data == b"\0"
    assert away.ask([header(GET_ID)], [20, 1]).data[-1] == 0


@pytest.mark.parametrize("kind", ["virtio-rnd", "virtio-fast-rng"])
def test_entropy(machine: SimMachine, kind: str) -> None:
    away = Away(machine, kind, "")
    away.start()
    assert away.ask([], [64]).data != b"\xa5" * 64


def test_console_that_writes_to_a_file(machine: SimMachine, tmp_path: Path) -> None:
    away = Away(machine, "virtio-console", f"file:out={tmp_path / 'out'}")
    away.start(0)
    away.ask([LINE], [], queue=1)
    away.until(lambda: (tmp_path / "out").read_bytes() == LINE)


def test_console_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with SimMachine(plugins=PLUGINS) as machine:
        away = Away(machine, "virtio-console", f"tty:line={os.ttyname(theirs)}")
        away.start(0)
        assert termios.tcgetattr(theirs) != before
        away.ask([LINE], [], queue=1)
        assert os.read(ours, 100) == LINE
        os.write(ours, LINE)
        assert away.ask([], [100], queue=0).data[: len(LINE)] == LINE
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)


def test_console_that_takes_connections_one_after_another(machine: SimMachine, tmp_path: Path) -> None:
    away = Away(machine, "virtio-console", f"socket:line={tmp_path / 'line'}:server")
    away.start(0)
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE_S)
            peer.connect(os.fspath(tmp_path / "line"))
            peer.sendall(LINE)
            assert away.ask([], [100], queue=0).data[: len(LINE)] == LINE


def test_console_that_connects_again_and_again(machine: SimMachine, tmp_path: Path) -> None:
    away = Away(machine, "virtio-console", f"socket:line={tmp_path / 'line'}:client")
    away.start(0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "line"))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        for _ in range(2):
            peer, _ = listener.accept()
            with peer:
                peer.sendall(LINE)
                assert away.ask([], [100], queue=0).data[: len(LINE)] == LINE


def test_card_on_a_driver_of_a_plugin(machine: SimMachine) -> None:
    away = Away(machine, "virtio-net", "driver=loop")
    away.start(0)
    away.driver.queue(0).send([], [2048])
    away.driver.queue(0).kick()
    away.ask([PLAIN, frame(LINE)], [], queue=1)
    assert LINE in answer(machine, away.driver, 0).data


@pytest.fixture(params=["", "multi_queue"])
def tap(request: pytest.FixtureRequest) -> Iterator[str]:
    if os.geteuid() != 0 or shutil.which("ip") is None or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root, iproute2 and /dev/net/tun")
    name = f"dms{os.getpid() % 100000}"
    several = [request.param] if request.param else []
    made = subprocess.run(
        ["ip", "tuntap", "add", "mode", "tap", "name", name, *several], check=False, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no tap can be made here: {made.stderr.strip()}")
    try:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=False)


def test_card_on_a_tap(machine: SimMachine, tap: str) -> None:
    """With all offloads, set at the start; and the control queue answers."""
    away = Away(machine, "virtio-net", f"tap={tap}")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
        wire.bind((tap, 0))
        wire.settimeout(PATIENCE_S)
        away.start()
        away.ask([PLAIN, frame(LINE)], [], queue=1)
        while LINE not in wire.recv(4096):
            pass
        for _ in range(16):
            away.driver.queue(0).send([], [4096])
        away.driver.queue(0).kick()
        found: list[bytes] = []

        def arrived() -> bool:
            wire.send(frame(LINE))
            machine.settle()
            found.extend(done.data for done in away.driver.queue(0).completed())
            return any(LINE in data for data in found)

        away.until(arrived)
        assert away.ask([bytes([0, 0]), b"\1"], [1], queue=2).data == b"\0"  # promiscuous


def said(path: Path, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(PATIENCE_S)
        one.connect(os.fspath(path))
        one.sendall(line + b"\n")
        return one.recv(100)


@pytest.mark.parametrize(
    ("kind", "options"), [("virtio-gpio", "line=button"), ("virtio-i2c", "device=lm75@0x48"), ("virtio-input", "")]
)
def test_senders_of_lines_and_a_script(machine: SimMachine, tmp_path: Path, kind: str, options: str) -> None:
    (tmp_path / "script").write_text("no such order\n")
    text = f"{options},control={tmp_path / 'control'},script={tmp_path / 'script'}".removeprefix(",")
    away = Away(machine, kind, text)
    away.start()
    assert said(tmp_path / "control", b"no such order").startswith(b"error")
