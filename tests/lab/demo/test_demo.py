"""The demonstration's own parts: its judgement of what the guest says, its disk, its result."""

import json
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from lab.demo import disk as disks
from lab.demo import drive, vmm
from lab.demo.disk import MIB, Disk
from lab.demo.log import Check, Log

HELLO_TO_BYE = ["HELLO", "CHECK kernel ok 6.1", "PROMPT", "CHECK console ok {reversed}", "DONE"]


def make_plan(tmp_path: Path) -> drive.Plan:
    return drive.Plan(
        argv=["vmm"],
        console=str(tmp_path / "console"),
        report=str(tmp_path / "report"),
        tap="tap0",
        host_address="198.51.100.1",
        guest_address="198.51.100.2",
        nonce="abc",
        expected={"kernel": "6.1"},
        serial_log=str(tmp_path / "serial"),
        dmesg=str(tmp_path / "dmesg"),
    )


def play_guest(connection: socket.socket, script: Iterable[str], heard: list[str]) -> None:
    """A guest that says each line of the script; after HELLO, PROMPT and DONE it listens."""
    with connection, connection.makefile("r") as lines:
        for line in script:
            connection.sendall(line.format(reversed=heard[-1][::-1] if heard else "").encode() + b"\n")
            if line in {"HELLO", "PROMPT", "DONE"}:
                heard.append(lines.readline().strip())


def converse(plan: drive.Plan, script: Iterable[str]) -> list[str]:
    ours, theirs = socket.socketpair()
    heard: list[str] = []
    guest = threading.Thread(target=play_guest, args=(theirs, script, heard))
    guest.start()
    try:
        with ours:
            drive.Dialogue(plan, ours).run()
    finally:
        guest.join()
    return heard


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_dialogue_of_a_good_guest_passes_its_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heard = converse(make_plan(tmp_path), HELLO_TO_BYE)
    assert [event["ok"] for event in events(capsys) if "check" in event] == [True, True]
    assert heard[0] == "GO abc 198.51.100.2/30 198.51.100.1"
    assert heard[-1] == "BYE"


def test_dialogue_with_an_unexpected_detail_fails_that_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    converse(make_plan(tmp_path), ["HELLO", "CHECK kernel ok 5.4", "DONE"])
    assert {"check": "kernel", "ok": False, "detail": "5.4, expected 6.1"} in events(capsys)


def test_dialogue_with_the_typed_line_just_echoed_fails_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    converse(make_plan(tmp_path), ["HELLO", "PROMPT", "CHECK console ok typed", "DONE"])
    assert [event["ok"] for event in events(capsys) if event.get("check") == "console"] == [False]


def test_dialogue_with_a_guest_that_fails_a_check_fails_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converse(make_plan(tmp_path), ["HELLO", "CHECK ping fail no result", "DONE"])
    assert {"check": "ping", "ok": False, "detail": "no result"} in events(capsys)


def test_dialogue_that_breaks_off_raises(tmp_path: Path) -> None:
    with pytest.raises(drive.Failure, match="closed before"):
        converse(make_plan(tmp_path), ["HELLO", "CHECK kernel ok 6.1"])


def test_log_of_output_cut_anywhere_has_every_check() -> None:
    log = Log()
    output = b'{"note": "up"}\n{"check": "ping", "ok": true, "detail": "20"}\n'
    for position in range(len(output)):
        log.events(output[position : position + 1])
    assert log.checks == {"ping": Check(ok=True, detail="20")}


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(disks, "READ_MIB", 1)
    monkeypatch.setattr(disks, "WRITE_MIB", 1)
    return Disk(tmp_path / "disk")


def write(disk: Disk, offset: int, data: bytes) -> None:
    with disk.path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def written_by_guest(disk: Disk) -> bytes:
    return (f"{disk.nonce}\n" * MIB).encode()[:MIB]


def test_disk_written_as_told_passes(disk: Disk) -> None:
    write(disk, MIB, written_by_guest(disk))
    assert disk.verify().ok


def test_disk_with_one_byte_missing_fails(disk: Disk) -> None:
    write(disk, MIB, written_by_guest(disk)[:-1])
    assert not disk.verify().ok


def test_disk_with_the_first_part_touched_fails(disk: Disk) -> None:
    write(disk, MIB, written_by_guest(disk))
    write(disk, 4711, b"\0\0\0\0")
    assert "CHANGED" in disk.verify().detail


@pytest.mark.parametrize("program", vmm.NAMES)
def test_command_of_each_vmm_names_the_disk_and_the_tap(program: str) -> None:
    machine = vmm.Machine(kernel="k", initramfs="i", disk="the-disk", tap="the-tap", console="c", report="r")
    command = " ".join(vmm.command(program, machine))
    assert "the-disk" in command
    assert "the-tap" in command


def test_rings_are_packed_where_acrn_dm_moves_the_data() -> None:
    parts = {"kernel": "k", "initramfs": "i", "disk": "d", "tap": "t", "console": "c", "report": "r"}
    machines = [vmm.Machine(**parts), vmm.Machine(**parts, card=",vhost", medium="vhost-user=s")]
    said = [vmm.rings(vmm.command(name, machine), machine) for name in vmm.NAMES for machine in machines]
    assert said == [
        "packed: virtio_blk virtio_net virtio_console virtio_rng",
        "packed: virtio_console virtio_rng",
        "packed: none",
        "packed: none",
    ]
