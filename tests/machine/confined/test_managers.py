"""What managers ask of a machine in its sandbox: a medium can't be had there any more, and all else goes on."""

import json
import socket
from pathlib import Path

import pytest

from tests.base.sandbox.sandbox_rig import needs_all
from tests.machine.confined.confined_rig import FIRST_SLOT as SLOT
from tests.machine.confined.confined_rig import MONITOR, SECTOR, Confined, confined

pytestmark = needs_all


def told(machine: Confined, path: Path, name: str, arguments: str) -> int:
    """The monitor's answer to a command."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.settimeout(60)
        client.sendall(json.dumps({"command": name, "arguments": arguments}).encode())
        machine.ask("made.settle()")
        return int(json.loads(client.recv(100))["ack"])


@pytest.mark.parametrize(
    ("mode", "options", "why"),
    [
        ("on", "", "Operation not permitted (EPERM)"),
        ("strict", "", "Operation not permitted (EPERM)"),
        ("strict", ",ro", "Permission denied (EACCES)"),
    ],
)
def test_medium_is_refused_with_a_line_and_the_slot_stays_empty(
    tmp_path: Path, mode: str, options: str, why: str
) -> None:
    image, other = tmp_path / "disk.img", tmp_path / "other.img"
    for path in (image, other):
        path.write_bytes(bytes(16 * SECTOR))
    devices = ("virtio-blk,nodisk", "virtio-blk,nodisk,process=on", f"virtio-blk,{image}")
    with confined(tmp_path, *devices, mode=mode) as machine:
        monitor = tmp_path / MONITOR
        for slot in (SLOT, SLOT + 1):
            assert told(machine, monitor, "blkrescan", f"{slot},{other}{options}") == -1
            capacity = machine.ask(f"disks[{slot}].driver.read_config(0, 8).hex()")
            assert capacity == "00" * 8
        assert told(machine, monitor, "blkthrottle", f"{SLOT + 2},iops=1000") == 0
        assert machine.ask(f"disks[{SLOT + 2}].do(1, 1)") == 1
        assert machine.ask("made.failures") == []
    first, second = [line for line in machine.log.read_text().splitlines() if line.startswith("command monitor: ")]
    assert first == f"command monitor: opening image {other}: {why}; sandbox={mode} may be why"
    assert second.endswith("is in a process of its own (process=on), which takes no orders")
    assert image.read_bytes()[SECTOR] == 1


def test_medium_is_put_in_without_one(tmp_path: Path) -> None:
    """Or the refusals would show nothing."""
    other = tmp_path / "other.img"
    other.write_bytes(bytes(16 * SECTOR))
    with confined(tmp_path, "virtio-blk,nodisk", mode="off") as machine:
        assert told(machine, tmp_path / MONITOR, "blkrescan", f"{SLOT},{other}") == 0
        assert machine.ask(f"disks[{SLOT}].do(1, 1)") == 1
    assert other.read_bytes()[SECTOR] == 1
